"""What selections choose, against exhaustion, by hand, and what all of them promise."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch.nn.functional import normalize

from ddoq.errors import ConfigError
from ddoq.selections import S3, Candidates, Confidence, Difficulty, KCenter, Nearest, Outputs
from ddoq.selections.difficulty import shares

ALL = (S3, Confidence, Difficulty, KCenter, Nearest)
#: Points of three classes; the second has more.
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 2])


def outputs(num: int, num_classes: int, seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    return Outputs(
        torch.randn(num, 6, generator=generator), torch.randn(num, num_classes, generator=generator)
    )


def candidates(num_draws: int, labels: torch.Tensor = LABELS, seed: int = 0) -> Candidates:
    num_classes = int(labels.max()) + 1
    return Candidates(labels=labels, outputs=outputs(num_draws * len(labels), num_classes, seed))


def real(label: int) -> Outputs:
    return outputs(40, 3, 100 + label)


@pytest.mark.parametrize("kind", ALL)
def test_each_class_gets_as_many_different_images_as_it_has_points(kind):
    chosen = kind(num_draws=4).choose(candidates(4), real, seed=0)
    assert len(chosen.rows.unique()) == len(LABELS)
    assert torch.equal(LABELS[chosen.rows % len(LABELS)], LABELS)
    again = kind(num_draws=4).choose(candidates(4), real, seed=0)
    assert torch.equal(chosen.rows, again.rows)


@pytest.mark.parametrize("kind", ALL)
def test_of_one_draw_everything_is_chosen(kind):
    chosen = kind(num_draws=1).choose(candidates(1), real, seed=0)
    assert chosen.rows.sort().values.tolist() == list(range(len(LABELS)))


@pytest.mark.parametrize("kind", ALL)
def test_one_class_is_enough(kind):
    labels = torch.zeros(3, dtype=torch.int64)
    chosen = kind(num_draws=2).choose(
        candidates(2, labels), lambda label: outputs(40, 1, 0), seed=0
    )
    assert len(chosen.rows.unique()) == 3


@pytest.mark.parametrize("kind", ALL)
def test_candidates_that_are_all_alike_are_not_taken_twice(kind):
    alike = Outputs(torch.ones(20, 6), torch.ones(20, 3))
    chosen = kind(num_draws=2).choose(Candidates(labels=LABELS, outputs=alike), real, seed=0)
    assert len(chosen.rows.unique()) == len(LABELS)


# --- S³ ---------------------------------------------------------------------------------------


def units(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.rand(*shape, generator=generator).double(), dim=-1)


def objective(draws: torch.Tensor, targets: torch.Tensor, chosen, alpha: float, beta: float):
    """The sum of the docstring, term by term."""

    def log_distance(a, b):
        return math.log(max(1 - float(a @ b), 1e-12))

    means = [draws[c, g] for c, g in enumerate(chosen)]
    near = sum(-alpha * log_distance(m, r) for m, r in zip(means, targets, strict=True))
    apart = sum(
        log_distance(means[c], means[d])
        for c in range(len(means))
        for d in range(c + 1, len(means))
    )
    return near + beta * apart


@pytest.mark.parametrize("seed", range(30))
def test_the_ascent_never_falls_ends_where_no_class_gains_and_is_the_objective(seed):
    draws, targets, s3 = units(4, 3, 5, seed=seed), units(4, 5, seed=1000 + seed), S3()
    chosen, course = s3.ascend(draws, targets)
    assert all(b > a for a, b in zip(course, course[1:], strict=False))
    nearest = (draws * targets[:, None]).sum(-1).argmax(1)
    assert course[0] == pytest.approx(objective(draws, targets, nearest, 0.4, 0.9), abs=1e-9)
    assert course[-1] == pytest.approx(objective(draws, targets, chosen, 0.4, 0.9), abs=1e-9)
    for c, g in product(range(4), range(3)):
        other = chosen.clone()
        other[c] = g
        assert objective(draws, targets, other, 0.4, 0.9) <= course[-1] + 1e-9


def test_small_cases_have_the_optimum_of_exhaustion():
    """Class by class the ascent may end beside it, in a third of these: never above it."""
    hits = 0
    for seed in range(50):
        draws, targets = units(3, 4, 5, seed=seed), units(3, 5, seed=1000 + seed)
        best = max(
            objective(draws, targets, choice, 0.4, 0.9) for choice in product(range(4), repeat=3)
        )
        course = S3().ascend(draws, targets)[1]
        assert course[-1] <= best + 1e-9
        hits += course[-1] >= best - 1e-9
    assert hits >= 33


def test_without_the_other_classes_each_takes_the_nearest_draw():
    draws, targets = units(5, 4, 6, seed=0), units(5, 6, seed=1)
    chosen, course = S3(beta=0.0).ascend(draws, targets)
    assert chosen.tolist() == (draws @ targets[..., None])[..., 0].argmax(1).tolist()
    assert len(course) == 1


def test_masses_can_stay_because_every_point_has_one_image():
    chosen = S3().choose(candidates(5), real, seed=0)
    assert (chosen.rows % len(LABELS)).tolist() == list(range(len(LABELS)))
    draws = chosen.rows // len(LABELS)
    assert all(len(draws[label == LABELS].unique()) == 1 for label in range(3))


# --- the others -------------------------------------------------------------------------------


def test_the_teacher_s_right_answers_go_first_and_confidence_orders_them():
    chance = torch.tensor([0.9, 0.6, 0.4, 0.8, 0.45, 0.1])  # of class 0, of two classes
    logits = torch.stack([chance, 1 - chance], 1).log()
    labels = torch.zeros(3, dtype=torch.int64)
    given = Candidates(labels=labels, outputs=Outputs(torch.zeros(6, 2), logits))

    def kept(order: str) -> list[int]:
        return Confidence(num_draws=2, order=order).choose(given, real, 0).rows.tolist()

    assert kept("most") == kept("auto") == [0, 3, 1]
    assert kept("least") == [1, 3, 0]
    six = torch.zeros(6, dtype=torch.int64)
    short = Candidates(labels=six, outputs=given.outputs)
    assert Confidence(num_draws=1).choose(short, real, 0).rows.tolist() == [0, 3, 1, 4, 2, 5]


def test_from_eleven_images_on_the_least_confident_are_kept():
    labels = torch.zeros(11, dtype=torch.int64)
    logits = torch.stack([torch.linspace(1, 9, 22), torch.zeros(22)], 1)  # all correct
    given = Candidates(labels=labels, outputs=Outputs(torch.zeros(22, 2), logits))
    assert Confidence(num_draws=2).choose(given, real, 0).rows.tolist() == list(range(11))


def test_bins_are_shared_out_by_largest_remainders():
    counts = torch.tensor([5, 0, 3, 2])
    assert shares(counts, 10).tolist() == [0] * 5 + [2] * 3 + [3] * 2
    assert shares(counts, 4).tolist() == [0, 0, 2, 3]  # 2, 0, 1.2, 0.8
    assert len(shares(counts, 7)) == 7


def test_the_chosen_are_as_hard_as_the_training_images():
    def of(chances: torch.Tensor) -> Outputs:
        return Outputs(torch.zeros(len(chances), 2), torch.stack([chances, 1 - chances], 1).log())

    hard = torch.linspace(0.05, 0.5, 200)
    mixed = torch.cat([torch.linspace(0.05, 0.5, 20), torch.linspace(0.9, 0.999, 60)])
    given = Candidates(labels=torch.zeros(20, dtype=torch.int64), outputs=of(mixed))
    chosen = Difficulty(num_draws=4).choose(given, lambda label: of(hard), 0)
    assert sorted(chosen.rows.tolist()) == list(range(20))


def test_nearest_finds_the_one_candidate_beside_each_cluster():
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    generator = torch.Generator().manual_seed(0)
    train = (centres[:, None] + 0.1 * torch.randn(3, 20, 2, generator=generator)).flatten(0, 1)
    features = torch.cat([centres + 3, centres + 0.5, centres + 5])
    given = Candidates(labels=torch.zeros(3, dtype=torch.int64), outputs=Outputs(features))
    chosen = Nearest(num_draws=3).choose(given, lambda label: Outputs(train), 0)
    assert sorted(chosen.rows.tolist()) == [3, 4, 5]


def test_kcenter_begins_in_the_middle_and_goes_far():
    features = torch.tensor([[0.0, 0], [1, 0], [-9, 0], [8.1, 0], [0.2, 0], [-0.4, 0]])
    given = Candidates(labels=torch.zeros(3, dtype=torch.int64), outputs=Outputs(features))
    assert KCenter(num_draws=2).choose(given, real, 0).rows.tolist() == [0, 2, 3]


def test_options_are_held_to_their_ranges():
    with pytest.raises(ConfigError, match="selection.num_draws: 0 is not positive"):
        S3(num_draws=0)
    with pytest.raises(ConfigError, match="selection.order: 'more' is not known"):
        Confidence(order="more")
