"""How well weighted points stand for a class.

With mu the empirical measure of the latents ``x_1..x_n`` and nu = sum_k w_k delta_{z_k}:
``W2^2(mu, nu)`` is smallest over w at the masses of the Voronoi cells, where it equals the
distortion ``(1/n) sum_i min_k |x_i - z_k|^2`` (Graf & Luschgy 2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import ot
import torch
from torch import Tensor

_CHUNK = 8192  # rows per distance block: 8192 × K doubles


def squared_distances(latents: Tensor, centroids: Tensor) -> Tensor:
    """Return ``|x_i - z_k|^2`` as float64 ``[n, K]``."""
    z = centroids.flatten(1).double()
    centre = z.mean(0)  # distances are small differences of large norms: centre first
    z = z - centre
    parts = []
    for block in latents.flatten(1).split(_CHUNK):
        x = block.double() - centre
        parts.append(
            (x.square().sum(1, keepdim=True) - 2 * x @ z.T + z.square().sum(1)).clamp_min(0)
        )
    return torch.cat(parts)


def w2_squared(
    latents: Tensor, centroids: Tensor, weights: Tensor, sample_weight: Tensor | None = None
) -> float:
    """Return the exact squared Wasserstein-2 distance of the latents to the weighted points
    (network simplex).

    Args:
        latents: ``[n, *shape]``.
        centroids: ``[K, *shape]``.
        weights: masses ``[K]``, normalised here.
        sample_weight: masses of the latents ``[n]``, equal by default, normalised here.
    """
    return transport_cost(
        squared_distances(latents, centroids).numpy(), weights.numpy(), sample_weight
    )


def transport_cost(
    costs: np.ndarray, weights: np.ndarray, sample_weight: np.ndarray | None = None
) -> float:
    """Return the least cost of moving masses ``[n]`` (equal by default) to masses ``[K]``;
    ``costs`` is ``[n, K]``.
    """
    source = np.ones(len(costs)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    target = np.asarray(weights, np.float64)
    return float(
        ot.emd2(
            source / source.sum(),
            target / target.sum(),
            costs.astype(np.float64),
            numItermax=10_000_000,
        )
    )


def effective_size(weights: Tensor) -> float:
    """Return Kish's effective number of points, ``(sum w)^2 / sum w^2``."""
    return (weights.sum().square() / weights.square().sum()).item()


def dispersion(weights: Tensor) -> float:
    """Return the coefficient of variation of the masses,
    their standard deviation over their mean; 0 if equal.
    """
    return (weights.std(unbiased=False) / weights.mean()).item()


@dataclass(frozen=True)
class Rate:
    """The power law ``W2 ∝ K^slope``, fitted by least squares on log-log axes.

    ``dimension`` is what Zador's theorem, ``W2 ∝ K^(-1/d)``, makes of the slope: -1/slope. Both are
    ``None`` where there are fewer than two points; the dimension also where W2 does not fall.
    """

    slope: float | None
    dimension: float | None


def rate(num_centroids: Sequence[int], w2_squares: Sequence[float]) -> Rate:
    """Fit the rate at which W2 falls with K, from at least two K with positive ``W2²``."""
    usable = [
        (k, w) for k, w in zip(num_centroids, w2_squares, strict=True) if w > 0 and np.isfinite(w)
    ]
    if len({k for k, _ in usable}) < 2:
        return Rate(None, None)
    log_k, log_w2 = np.log([k for k, _ in usable]), 0.5 * np.log([w for _, w in usable])
    slope = float(np.polyfit(log_k, log_w2, 1)[0])
    return Rate(slope, -1 / slope if slope < 0 else None)
