"""D3HR: statistics of inverted latents against NumPy, and the draws that are most like them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import skew

from ddoq.data.label_space import LabelSpace
from ddoq.encoders import Pixels
from ddoq.errors import ConfigError
from ddoq.generators import DiT, Points
from ddoq.generators.statistics import Moments, best_draws, score
from ddoq.utils.seeding import item_generator
from support.tiny_models import save_dit

SPACE = LabelSpace.from_classes([str(number) for number in range(10)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_dit(tmp_path_factory.mktemp("dit"), num_classes=10)


def dit(folder, **options) -> DiT:
    return DiT(
        path=str(folder),
        encoder=Pixels(),
        label_space=SPACE,
        **{"start": "statistics", "num_steps": 10, "strength": 0.6, "guidance_scale": 1.0}
        | options,
    )


def latents(num: int) -> torch.Tensor:
    return torch.randn(num, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def test_moments_are_numpy_s_however_items_come():
    items = 5 + 3 * latents(23)
    for sizes in ([23], [1] * 23, [10, 13], [20, 1, 2]):
        moments = Moments()
        for batch in items.split(sizes):
            moments.add(batch)
        assert moments.num == 23
        np.testing.assert_allclose(moments.mean, items.double().numpy().mean(0), rtol=1e-6)
        np.testing.assert_allclose(moments.std, items.double().numpy().std(0), rtol=1e-6)


def test_statistics_of_a_tiny_dit_s_inversions_are_numpy_s(folder):
    generator, points, labels = dit(folder), latents(12), torch.full((12,), 3)
    moments = Moments()
    for rows in (slice(0, 5), slice(5, 12)):
        moments.add(generator.inverted(points[rows], labels[rows]))
    whole = generator.inverted(points, labels).double().numpy()
    np.testing.assert_allclose(moments.mean, whole.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moments.std, whole.std(0), rtol=1e-4, atol=1e-5)


def test_sampling_starts_where_inversion_ends(folder):
    """One and the same time of the schedule, which the released code misses by a step."""
    generator, clean, labels = dit(folder, num_steps=100), latents(2), torch.tensor([3, 4])
    times: list[int] = []
    predict = generator.predict

    def followed(sample, time, conditions):
        times.append(int(time[0]))
        return predict(sample, time, conditions)

    generator.predict = followed
    noisy = generator.inverted(clean, labels)
    upwards, times = times, []
    back = generator.sample(Points(noisy, labels, torch.zeros(2).long(), [0, 1]))
    assert upwards == times[::-1] and times[0] == generator.schedule.timesteps[40]
    assert (back - clean).norm() < 0.2 * (noisy - clean).norm()


def test_31_of_50_steps_are_the_noise_level_of_the_published_statistics(folder):
    generator = dit(folder, num_steps=50, strength=0.62)
    times: list[int] = []
    predict = generator.predict
    generator.predict = lambda s, t, c: (times.append(int(t[0])), predict(s, t, c))[1]
    generator.inverted(latents(1), torch.tensor([0]))
    assert (len(times), max(times)) == (31, 600)


def test_inversions_may_be_guided_and_the_rest_of_sampling_does_not_matter(folder):
    points, labels = latents(2), torch.tensor([1, 2])
    plain = dit(folder).inverted(points, labels)
    assert torch.equal(plain, dit(folder, guidance_scale=4.0).inverted(points, labels))
    assert not torch.allclose(plain, dit(folder, inversion_scale=4.0).inverted(points, labels))


def test_the_score_is_that_of_numpy_and_scipy():
    draws, mean, std = latents(7), latents(1)[0], latents(2)[1].abs()
    x = draws.flatten(1).double().numpy()
    expected = (
        np.linalg.norm(x.mean(0) - mean.flatten().numpy())
        + np.linalg.norm(x.std(0) - std.flatten().numpy())
        + 0.1 * np.linalg.norm(skew(x, 0))
    )
    assert score(draws, mean, std) == pytest.approx(expected, rel=1e-5)
    one = latents(1)  # has no spread and no skewness
    assert score(one, one[0], torch.ones(4, 8, 8)) == pytest.approx(math.sqrt(256))


def test_the_best_of_all_sets_is_taken_and_further_sets_change_no_earlier_one():
    mean, std = latents(1)[0], latents(2)[1].abs()
    sets = [
        mean + std * torch.randn(5, 4, 8, 8, generator=item_generator(0, "x", number))
        for number in range(30)
    ]
    scores = [score(draws, mean, std) for draws in sets]
    for num_sets in (1, 10, 30):
        best = best_draws(mean, std, 5, num_sets, 0, "x")
        assert torch.equal(best, sets[int(np.argmin(scores[:num_sets]))])


def test_a_schedule_that_scales_its_samples_cannot_be_inverted(folder):
    with pytest.raises(ConfigError, match="scales its samples"):
        dit(folder, scheduler="EulerDiscreteScheduler")
