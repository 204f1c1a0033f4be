"""Weightings: from masses to weights of mean 1."""

from __future__ import annotations

import math

import pytest
import torch

from ddoq.quantizers import Clip, Mass, Paper, Power, Shrink, Uniform

MASSES = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)


@pytest.mark.parametrize(
    "scheme",
    [Uniform(), Mass(), Power(0.5), Paper(), Clip(0.5, 1.5), Shrink(0.5)],
    ids=lambda s: type(s).__name__,
)
def test_weights_have_mean_one_and_keep_the_order(scheme):
    weights = scheme(MASSES)
    assert weights.mean().item() == pytest.approx(1)
    assert all(a >= b for a, b in zip(weights.tolist(), weights.tolist()[1:], strict=False))


def test_weighting_schemes_by_hand():
    assert Uniform()(MASSES).tolist() == [1, 1, 1, 1]
    assert Mass()(MASSES).tolist() == pytest.approx([2.0, 1.2, 0.6, 0.2])
    assert Power(1)(MASSES).tolist() == pytest.approx(Mass()(MASSES).tolist())
    assert Power(0)(MASSES).tolist() == pytest.approx([1] * 4)
    roots = [math.sqrt(m) for m in MASSES.tolist()]
    assert Power(0.5)(MASSES).tolist() == pytest.approx([4 * r / sum(roots) for r in roots])
    assert Paper()(MASSES).tolist() == Power(0.5)(MASSES).tolist()
    assert Shrink(0.25)(MASSES).tolist() == pytest.approx(
        [0.75 * w + 0.25 for w in (2.0, 1.2, 0.6, 0.2)]
    )
    clipped = [1.5, 1.2, 0.6, 0.5]
    assert Clip(0.5, 1.5)(MASSES).tolist() == pytest.approx([4 * c / sum(clipped) for c in clipped])
