"""Metrics, ranking scores, fidelity and paired statistics are what their definitions say,
at the edges too.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from sklearn.metrics import log_loss, recall_score, top_k_accuracy_score
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from ddoq.errors import ConfigError, DataError, StageError
from ddoq.evaluation.fidelity import (
    density_coverage,
    fidelity,
    frechet_distance,
    label_entropy,
    precision_recall,
    rank_correlation,
)
from ddoq.evaluation.metrics import classification_metrics
from ddoq.evaluation.ranking import (
    augmentation_robust_score,
    hard_label_recovery,
    improvement_over_random,
    label_robust_score,
)
from ddoq.evaluation.statistics import Summary, compare_paired, summarize


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels_of(num: int, num_classes: int, seed: int = 1) -> Tensor:
    return torch.randint(num_classes, (num,), generator=torch.Generator().manual_seed(seed))


# --- classification ---------------------------------------------------------------------------


def test_metrics_agree_with_sklearn_and_torchmetrics():
    """Fails on a wrong axis, on means over classes instead of images, and on percentages."""
    logits, labels = 2 * normal(500, 8), labels_of(500, 8)
    found = classification_metrics(logits, labels)
    probabilities, classes = logits.softmax(1).numpy(), np.arange(8)
    for k, name in ((1, "top1"), (5, "top5")):
        assert found[name] == pytest.approx(
            top_k_accuracy_score(labels, probabilities, k=k, labels=classes)
        )
    assert found["nll"] == pytest.approx(log_loss(labels, probabilities, labels=classes), rel=1e-5)
    assert found["per_class"] == pytest.approx(
        recall_score(labels, probabilities.argmax(1), average=None)
    )
    oracle = multiclass_calibration_error(logits.softmax(1), labels, num_classes=8, n_bins=15)
    assert found["ece"] == pytest.approx(oracle.item(), rel=1e-5)


def test_calibration_error_by_hand_with_sure_predictions():
    """Fails if a confidence of exactly 1 leaves the last bin: that would give 0.075."""
    sure, unsure = torch.tensor([200.0, 0.0]), torch.tensor([0.95, 0.05]).log()
    logits = torch.stack([sure] * 10 + [unsure] * 10)
    labels = torch.tensor([1] + [0] * 19)
    assert classification_metrics(logits, labels)["ece"] == pytest.approx(
        abs(0.95 - 0.975), abs=1e-6
    )


def test_calibration_has_fifteen_bins():
    """Fails with 10 or 20 bins: 0.72 and 0.745, apart at 11/15, would share one,
    and their gaps would cancel.
    """
    confidence = torch.tensor([0.72] * 10 + [0.745] * 10, dtype=torch.float64)
    logits = torch.stack([confidence, 1 - confidence], 1).log()
    labels = torch.tensor([0] * 15 + [1] * 5)
    assert classification_metrics(logits, labels)["ece"] == pytest.approx(
        (0.28 + 0.245) / 2, abs=1e-6
    )


@pytest.mark.parametrize("num_classes", [2, 5])
def test_few_classes_have_no_top5_and_an_absent_class_no_accuracy(num_classes: int):
    """Fails if top-5 of two classes raises or is 1, and if an absent class counts as 0."""
    logits = torch.zeros(1, num_classes)
    logits[0, 0] = 3.0
    found = classification_metrics(logits, torch.tensor([0]))
    assert (found["top1"], found["top5"]) == (1.0, None)
    assert found["per_class"] == [1.0] + [None] * (num_classes - 1)
    assert found["nll"] == pytest.approx(math.log(1 + (num_classes - 1) * math.exp(-3)), rel=1e-6)
    assert all(type(found[name]) is float for name in ("top1", "ece", "nll"))


def test_half_precision_logits_are_measured_in_full():
    """Fails if the likelihood is summed in float16, where 5000 images overflow or round."""
    logits, labels = (4 * normal(5000, 10)).half(), labels_of(5000, 10)
    found = classification_metrics(logits, labels)
    expected = log_loss(labels, logits.double().softmax(1).numpy(), labels=np.arange(10))
    assert found["nll"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_refused(bad: float):
    """Fails if a diverged student gets an accuracy: argmax of NaN is a class."""
    logits = normal(4, 3)
    logits[2, 1] = bad
    with pytest.raises(StageError, match="NaN or infinite"):
        classification_metrics(logits, labels_of(4, 3))


# --- ranking ----------------------------------------------------------------------------------


def test_ranking_scores_by_hand():
    """Fails on a swapped sign, weight or argument."""
    ior, hlr = improvement_over_random(0.6, 0.5), hard_label_recovery(0.9, 0.4)
    assert (ior, hlr) == (pytest.approx(0.1), pytest.approx(0.5))
    low, span = math.exp(-1), math.e - math.exp(-1)
    assert label_robust_score(ior, hlr) == pytest.approx((math.exp(-0.2) - low) / span)
    assert label_robust_score(ior, hlr, weight=0.9) == pytest.approx((math.exp(0.04) - low) / span)
    score = augmentation_robust_score(0.6, 0.5, 0.5, 0.2, weight=0.25)
    assert score == pytest.approx((math.exp(0.25 * 0.1 + 0.75 * 0.3) - low) / span)


def test_ranking_scores_span_zero_to_one():
    """Fails if the normalisation is not that of a in [-1, 1]."""
    assert label_robust_score(1, -1) == pytest.approx(1) == augmentation_robust_score(1, 0, 1, 0)
    assert label_robust_score(-1, 1) == pytest.approx(0) == augmentation_robust_score(0, 1, 0, 1)
    assert label_robust_score(0, 0) == pytest.approx(0.2689, abs=1e-4)


@pytest.mark.parametrize(
    ("score", "arguments", "name"),
    [
        (hard_label_recovery, (90.0, 0.4), "real_hard"),
        (hard_label_recovery, (0.9, -0.1), "synthetic_hard"),
        (improvement_over_random, (0.6, 50), "random"),
        (improvement_over_random, (math.nan, 0.5), "synthetic"),
        (label_robust_score, (25.0, 0.1), "ior"),
        (label_robust_score, (0.1, -1.1), "hlr"),
        (label_robust_score, (0.1, 0.1, 50), "weight"),
        (augmentation_robust_score, (60.0, 50.0, 50.0, 40.0), "synthetic"),
        (augmentation_robust_score, (0.6, 0.5, 0.5, 0.4, -0.5), "weight"),
    ],
)
def test_percentages_are_refused(score, arguments: tuple, name: str):
    """Fails if a percentage or NaN gets into the exponential."""
    with pytest.raises(ConfigError, match=rf"\.{name}: .*\n  -> give fractions"):
        score(*arguments)


# --- Fréchet distance -------------------------------------------------------------------------


def textbook(real: Tensor, synthetic: Tensor, weights: Tensor | None = None) -> float:
    """Heusel's formula with NumPy's covariance and SciPy's matrix root."""
    mass = np.ones(len(synthetic)) if weights is None else weights.numpy()
    s_r, s_s = np.cov(real.numpy().T), np.cov(synthetic.numpy().T, aweights=mass)
    gap = real.numpy().mean(0) - np.average(synthetic.numpy(), axis=0, weights=mass)
    return gap @ gap + np.trace(s_r + s_s - 2 * linalg.sqrtm(s_r @ s_s).real)


@pytest.mark.parametrize("num_real", [200, 4])  # 4 < d: of low rank on both sides
def test_frechet_distance_is_the_textbooks(num_real: int):
    """Fails with the population covariance, a missing root, and weights in the mean only."""
    real, synthetic = normal(num_real, 6), 1.5 * normal(80, 6, seed=1) @ normal(6, 6, seed=2) + 1
    assert frechet_distance(real, synthetic) == pytest.approx(textbook(real, synthetic), rel=1e-6)
    weights = normal(80, seed=3).exp()
    assert frechet_distance(real, synthetic, weights) == pytest.approx(
        textbook(real, synthetic, weights), rel=1e-6
    )
    assert frechet_distance(real, synthetic, torch.full((80,), 7.0)) == pytest.approx(
        frechet_distance(real, synthetic)
    )


def test_frechet_distance_of_commuting_covariances_by_hand():
    """Fails on any wrong factor: in one dimension it is (mu_r - mu_s)² + (sigma_r - sigma_s)²."""
    real, synthetic = torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [4.0], [5.0]])
    assert frechet_distance(real, synthetic) == pytest.approx(
        (1 - 4) ** 2 + (math.sqrt(2) - 1) ** 2
    )


@pytest.mark.parametrize("num", [1, 2, 5])
def test_frechet_distance_with_fewer_points_than_dimensions(num: int):
    """Fails on NaN, complex or negative results where the covariance is singular;
    singular values as the oracle.
    """
    real, synthetic = normal(50, 40), normal(num, 40, seed=1)
    found = frechet_distance(real, synthetic)
    root = linalg.sqrtm(np.cov(real.numpy().T)).real
    s_s = np.cov(synthetic.numpy().T) if num > 1 else np.zeros((40, 40))
    values = np.linalg.eigvalsh(root @ s_s @ root).clip(0)
    gap = (real.mean(0) - synthetic.mean(0)).square().sum().item()
    assert found == pytest.approx(
        gap + np.trace(root @ root + s_s) - 2 * np.sqrt(values).sum(), rel=1e-6
    )


def test_frechet_distance_of_a_set_to_itself_is_zero_and_of_a_point_to_a_point_the_squared_gap():
    """Fails if rounding gives a negative value, or a single point has a covariance of NaN."""
    real = normal(30, 50) + 1000
    assert all(0 <= frechet_distance(real[:num], real[:num]) < 1e-6 for num in range(1, 30))
    assert frechet_distance(real[:1], real[1:2]) == pytest.approx(
        (real[0] - real[1]).square().sum().item()
    )
    same = torch.ones(6, 3)
    assert frechet_distance(same, same) == 0


@pytest.mark.parametrize("rest", [0.0, 1e-30, 1e-320])
def test_all_mass_on_one_point_is_that_point_alone(rest: float):
    """Fails if points without mass have a say, or if 1 - sum w² = 0 divides."""
    real, synthetic = normal(40, 3), normal(5, 3, seed=1)
    weights = torch.full((5,), rest, dtype=torch.float64)
    weights[3] = 1.0
    assert fidelity(real, synthetic, weights) == pytest.approx(fidelity(real, synthetic[3:4]))


# --- balls ------------------------------------------------------------------------------------


def by_loops(
    real: Tensor, synthetic: Tensor, k: int, weights: Tensor | None = None
) -> dict[str, float]:
    """The four definitions, word for word; closed balls for the first two,
    open ones for the others.
    """

    def radius(points: list, i: int) -> float:
        return sorted(math.dist(points[i], points[j]) for j in range(len(points)) if j != i)[k - 1]

    mass = torch.ones(len(synthetic)) if weights is None else weights
    mass, real, synthetic = (mass / mass.sum()).tolist(), real.tolist(), synthetic.tolist()
    radii, reach = ([radius(points, i) for i in range(len(points))] for points in (real, synthetic))
    gap = [[math.dist(x, y) for y in synthetic] for x in real]
    rows, columns = range(len(real)), range(len(synthetic))
    return {
        "precision": sum(mass[j] for j in columns if any(gap[i][j] <= radii[i] for i in rows)),
        "recall": sum(any(gap[i][j] <= reach[j] for j in columns) for i in rows) / len(real),
        "density": sum(mass[j] * sum(gap[i][j] < radii[i] for i in rows) for j in columns) / k,
        "coverage": sum(any(gap[i][j] < radii[i] for j in columns) for i in rows) / len(real),
    }


@pytest.mark.parametrize("k", [1, 3])
def test_balls_agree_with_loops(k: int, monkeypatch):
    """Fails on swapped roles, on a point as its own neighbour, on unweighted sums,
    and at the edge of a block.
    """
    monkeypatch.setattr("ddoq.evaluation.fidelity._BLOCK", 150)
    real = normal(40, 2)
    synthetic = 1.3 * normal(25, 2, seed=1) + 0.5
    weights = normal(25, seed=2).exp()
    for mass in (None, weights):
        expected = by_loops(real, synthetic, k, mass)
        found = precision_recall(real, synthetic, k, mass) | density_coverage(
            real, synthetic, k, mass
        )
        assert found == pytest.approx(expected)
        assert all(0 < value < 1.5 for value in found.values())
        assert (
            fidelity(real, synthetic, mass, k)
            == {"frechet_distance": frechet_distance(real, synthetic, mass)} | found
        )


def test_balls_by_hand():
    """Fails on a closed ball of density or an open one of precision:
    2 is on the sphere of 1, and 3 of 5.
    """
    real, synthetic = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[2.0], [9.0]])
    # k = 1: radii 1, 1, 4. The point 2 is in the open ball of 5 only, 9 on its sphere.
    assert precision_recall(real, synthetic, 1) == {"precision": 1.0, "recall": 1.0}
    assert density_coverage(real, synthetic, 1) == {
        "density": 0.5,
        "coverage": pytest.approx(1 / 3),
    }


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_chosen_real_points_are_as_dense_as_the_real_ones(offset: float):
    """Fails if rounding decides whether a chosen point is on the sphere
    of which it is the k-th neighbour.
    """
    real = normal(300, 64).float() + offset
    assert fidelity(real, real, k=5) == pytest.approx(
        {"frechet_distance": 0, "precision": 1, "recall": 1, "density": 1, "coverage": 1}, abs=1e-6
    )
    chosen = real[::3]
    expected = by_loops(real.double(), chosen.double(), 4)
    assert precision_recall(real, chosen, 4) | density_coverage(real, chosen, 4) == pytest.approx(
        expected
    )


def test_identical_points_cover_each_other():
    """Fails if balls of radius zero are empty, or if NaN comes from zero spread."""
    same = torch.full((7, 3), 0.1)
    expected = {"precision": 1, "recall": 1, "density": 7 / 5, "coverage": 1}
    assert precision_recall(same, same[:4]) | density_coverage(same, same[:4]) == expected
    assert set(density_coverage(same, same[:4] + 1).values()) == {0}
    others = torch.cat([same, normal(3, 3).float() + 50])
    assert density_coverage(others, same[:4]) == {"density": 7 / 5, "coverage": 0.7}


def test_k_is_clipped_to_the_points_there_are():
    """Fails if k of more than the points raises, or if one real point divides by k = 0."""
    real, synthetic = normal(4, 2), normal(3, 2, seed=1)
    assert density_coverage(real, synthetic, 50) == density_coverage(real, synthetic, 3)
    assert (
        precision_recall(real, synthetic[:1], 50)["precision"]
        == precision_recall(real, synthetic[:1], 3)["precision"]
    )
    assert density_coverage(real[:1], real[:1]) == {"density": 1.0, "coverage": 1.0}
    assert density_coverage(real[:1], synthetic) == {"density": 0.0, "coverage": 0.0}


def test_an_exploded_synthetic_point_leaves_the_others_alone():
    """Fails if the tolerance of ties grows with the farthest synthetic point."""
    real, synthetic = normal(60, 4), normal(20, 4, seed=1)
    exploded = torch.cat([synthetic, torch.full((1, 4), 1e7, dtype=torch.float64)])
    before, after = density_coverage(real, synthetic), density_coverage(real, exploded)
    assert after["coverage"] == before["coverage"]
    assert after["density"] == pytest.approx(before["density"] * 20 / 21)


def test_balls_need_little_memory():
    """Fails if the whole matrix of distances of 10,000 points, 800 MB, is held.

    Of torch, counted by its profiler.
    """
    real, synthetic = normal(10_000, 8).float(), normal(100, 8, seed=1).float()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        density_coverage(real, synthetic)
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert 0 < peak < 200e6


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        (torch.ones(4), DataError),
        (torch.tensor([1.0, -1.0, 1.0]), DataError),
        (torch.tensor([1.0, math.nan, 1.0]), DataError),
        (torch.zeros(3), DataError),
    ],
)
def test_weights_that_are_no_masses_are_refused(weights: Tensor, error: type):
    """Fails if they are broadcast, or if NaN comes out."""
    with pytest.raises(error, match="no masses"):
        fidelity(normal(9, 2), normal(3, 2), weights)


def test_features_that_cannot_be_measured_are_refused():
    """Fails if NaN features give a distance of NaN or a coverage of zero,
    and if k = 0 gives an empty ball.
    """
    points = normal(9, 2)
    for bad in (math.nan, math.inf):
        broken = points.clone()
        broken[0, 0] = bad
        for pair in ((broken, points), (points, broken)):
            with pytest.raises(StageError, match="features are NaN"):
                fidelity(*pair)
    with pytest.raises(DataError, match="no points"):
        fidelity(points, points[:0])
    with pytest.raises(ConfigError, match="at least 1"):
        fidelity(points, points, k=0)


# --- entropy and rank correlation -------------------------------------------------------------


def test_label_entropy_is_scipys_over_its_maximum():
    """Fails on the wrong axis, on log 2, and on NaN where a probability is zero."""
    logits = normal(50, 7)
    found = label_entropy(logits)
    assert torch.allclose(
        found, torch.from_numpy(stats.entropy(logits.softmax(1).numpy(), axis=1)) / math.log(7)
    )
    assert label_entropy(torch.tensor([[0.0, 0.0], [9e3, 0.0], [0.0, -math.inf]])).tolist() == [
        1.0,
        0.0,
        0.0,
    ]
    assert label_entropy(torch.zeros(1, 1000)).item() <= 1
    assert label_entropy(torch.ones(2, 1)).tolist() == [0, 0]


def test_rank_correlation_by_hand():
    """Fails on Pearson's correlation, on ties out of order, and on NaN for what does not exist."""
    assert rank_correlation([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [0.3, 0.2, 0.1]) == pytest.approx(-1)
    ranks = [1, 2.5, 2.5, 4], [2, 1, 3, 4]
    assert rank_correlation([1, 2, 2, 9], [5, 4, 6, 7]) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    for a, b in (
        ([1, 1, 1], [1, 2, 3]),
        ([1, 2], [5, 5]),
        ([1], [2]),
        ([], []),
        ([1, math.nan, 2], [1, 2, 3]),
    ):
        assert rank_correlation(a, b) is None
    with pytest.raises(ValueError, match="3 values against 2"):
        rank_correlation([1, 2, 3], [1, 2])


# --- pairs ------------------------------------------------------------------------------------


def test_paired_comparison_is_scipys_t_test():
    """Fails on an unpaired test, a one-sided p value,
    or the spread of the arms instead of the differences.
    """
    after, before = [0.62, 0.65, 0.60, 0.66, 0.58], [0.60, 0.61, 0.60, 0.60, 0.59]
    found, oracle = compare_paired(after, before), stats.ttest_rel(after, before)
    differences = np.subtract(after, before)
    assert found.p_value == pytest.approx(oracle.pvalue)
    assert found.effect_size == pytest.approx(differences.mean() / differences.std(ddof=1))
    assert found.difference == summarize(differences.tolist())
    assert (found.wins, found.ties, found.losses, found.num) == (3, 1, 1, 5)
    back = compare_paired(before, after)
    assert (back.p_value, back.effect_size) == (
        pytest.approx(found.p_value),
        pytest.approx(-found.effect_size),
    )


def test_equal_differences_have_no_t_test_but_an_answer():
    """Fails on a division by zero, and if rounding
    (0.9 - 0.8 is not 0.7 - 0.6) passes for a spread.
    """
    same = compare_paired([0.5, 0.6], [0.5, 0.6])
    assert (same.p_value, same.ties) == (1.0, 2) and math.isnan(same.effect_size)
    up = compare_paired([0.9, 0.7, 0.4], [0.8, 0.6, 0.3])
    assert (up.p_value, up.effect_size, up.wins) == (0.0, math.inf, 3)
    down = compare_paired([0.8, 0.6], [0.9, 0.7])
    assert (down.p_value, down.effect_size, down.losses) == (0.0, -math.inf, 2)


def test_one_pair_and_nan_prove_nothing():
    """Fails if a single student, or one without an accuracy, makes a difference significant."""
    for after, before in (
        ([0.9], [0.1]),
        ([0.9, math.nan, 0.9], [0.1, 0.1, 0.1]),
        ([0.9, 0.8], [math.nan, 0.1]),
    ):
        found = compare_paired(after, before)
        assert math.isnan(found.p_value) and math.isnan(found.effect_size)
    assert (found.wins, found.ties, found.losses, found.num) == (1, 0, 0, 2)


@pytest.mark.parametrize(("after", "before"), [([0.1, 0.2], [0.1]), ([0.1], [0.1, 0.2]), ([], [])])
def test_pairs_must_be_pairs(after: list, before: list):
    """Fails if the longer arm is cut."""
    with pytest.raises(ValueError):
        compare_paired(after, before)


def test_interval_is_clipped_only_where_asked():
    """Fails if two students' interval leaves [0, 1], or if clipping turns 'unknown' into [0, 1]."""
    summary = summarize([0.90, 0.98])
    low, high = stats.t.interval(0.95, 1, loc=0.94, scale=stats.sem([0.90, 0.98]))
    assert summary.interval() == (pytest.approx(low), pytest.approx(high))
    assert high > 1 and summary.interval(0, 1) == (pytest.approx(low), 1)
    assert summarize([0.02, 0.10]).interval(low=0)[0] == 0
    assert Summary(0.5, 0.1, 0.2, 3).interval(0, 1) == (pytest.approx(0.3), pytest.approx(0.7))
    assert all(map(math.isnan, summarize([0.5]).interval(0, 1)))
