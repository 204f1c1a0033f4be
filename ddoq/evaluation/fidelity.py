"""How near synthetic images are to real ones in a feature space, without training a student.

``weights`` are masses of the synthetic points, normalised here, equal by default.
Points without mass do not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from ddoq.errors import ConfigError, DataError, StageError
from ddoq.quantizers.measures import squared_distances

_BLOCK = 2**21  # entries of a block of distances: 16 MB
#: Squared distances that differ by this share of the variance are equal:
#: real points may be "synthetic".
_TIE = 1e-12
_NO_MASS = 1e-12  # of the whole: below it 1 - w is lost to rounding, and so is the covariance


def fidelity(
    real: Tensor, synthetic: Tensor, weights: Tensor | None = None, k: int = 5
) -> dict[str, float]:
    """Return ``frechet_distance``, ``precision``, ``recall``, ``density`` and ``coverage``;
    see these functions.

    Args:
        real: ``[n, d]``.
        synthetic: ``[m, d]``.
        weights: ``[m]``.
        k: neighbours that define the size of a ball; at most the number of points minus one.

    Raises:
        StageError: features are NaN or infinite.
        DataError: there are no points, or the weights are no masses of the synthetic points.
        ConfigError: ``k`` is below one.
    """
    return {"frechet_distance": frechet_distance(real, synthetic, weights)} | _balls(
        real, synthetic, k, weights
    )


def frechet_distance(real: Tensor, synthetic: Tensor, weights: Tensor | None = None) -> float:
    """Return ``|mu_r - mu_s|² + tr(S_r + S_s - 2 (S_r S_s)^(1/2))``
    (Heusel et al. 2017), for any rank.

    The covariances are unbiased: ``sum_i w_i (x_i - mu)(x_i - mu)^T / (1 - sum_i w_i²)``, which for
    equal weights is ``np.cov``; that of a single point is zero. With few points the distance is
    biased upwards, so compare it only between sets of the same size.

    Args:
        real: ``[n, d]``.
        synthetic: ``[m, d]``.
        weights: ``[m]``.

    Raises:
        StageError: features are NaN or infinite.
        DataError: there are no points, or the weights are no masses of the synthetic points.
    """
    mean_r, root_r = _moments(*_cloud(real))
    mean_s, root_s = _moments(*_cloud(synthetic, weights))
    # With S = A^T A, tr (S_r S_s)^(1/2) is the sum of the singular values of A_r A_s^T:
    # no root, nothing complex.
    cross = torch.linalg.svdvals(root_r @ root_s.T).sum()
    squared = (
        (mean_r - mean_s).square().sum() + root_r.square().sum() + root_s.square().sum() - 2 * cross
    )
    return max(squared.item(), 0.0)


def precision_recall(
    real: Tensor, synthetic: Tensor, k: int = 5, weights: Tensor | None = None
) -> dict[str, float]:
    """Return ``precision`` and ``recall`` (Kynkäänniemi et al. 2019).

    Precision is the mass of the synthetic points that lie in a ball around a real point, recall the
    share of the real points that lie in a ball around a synthetic one. The balls are closed and
    reach to the k-th nearest other point of their own set.

    Args and Raises: as for ``fidelity``.
    """
    scores = _balls(real, synthetic, k, weights)
    return {name: scores[name] for name in ("precision", "recall")}


def density_coverage(
    real: Tensor, synthetic: Tensor, k: int = 5, weights: Tensor | None = None
) -> dict[str, float]:
    """Return ``density`` and ``coverage`` (Naeem et al. 2020),
    with balls around the real points only.

    Density is the mean number of balls that a synthetic point lies in, over k: 1 for points of the
    same distribution, and it may exceed 1. Coverage is the share of balls with a synthetic point
    inside. The balls are open, as in the authors' code, and reach to the k-th nearest other real
    point; the centre belongs to its ball even if that is empty.

    Args and Raises: as for ``fidelity``.
    """
    scores = _balls(real, synthetic, k, weights)
    return {name: scores[name] for name in ("density", "coverage")}


def label_entropy(logits: Tensor) -> Tensor:
    """Return the entropies of the softmax of logits ``[n, C]`` over their maximum log C:
    ``[n]`` in [0, 1], float64.
    """
    if logits.shape[1] == 1:
        return torch.zeros(len(logits), dtype=torch.float64)
    entropies = torch.special.entr(logits.double().softmax(1)).sum(1)
    return (entropies / math.log(logits.shape[1])).clamp_max(1)


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation of two measures of the same things,
    ties at their mean rank.

    ``None`` where it does not exist: one of them is constant or has a NaN,
    or there are fewer than two pairs.

    Raises:
        ValueError: the lengths differ.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} values against {len(b)}")
    if (
        len(a) < 2
        or np.isnan(a).any()
        or np.isnan(b).any()
        or (a == a[0]).all()
        or (b == b[0]).all()
    ):
        return None
    return float(spearmanr(a, b).statistic)


def _cloud(points: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the points that have mass, float64 ``[n, d]``, and their masses ``[n]``,
    which sum to one.
    """
    if not len(points):
        raise DataError(
            "fidelity: there are no points", "give at least one real and one synthetic image"
        )
    if not points.isfinite().all():
        raise StageError(
            "fidelity: features are NaN or infinite",
            "check the images and the encoder of the features",
        )
    points = points.detach().cpu().double()
    if weights is None:
        return points, torch.full((len(points),), 1 / len(points), dtype=torch.float64)
    weights = weights.detach().cpu().double()
    if (
        weights.shape != points.shape[:1]
        or not weights.isfinite().all()
        or weights.min() < 0
        or weights.sum() <= 0
    ):
        raise DataError(
            f"fidelity: {tuple(weights.shape)} weights are no masses of {len(points)} points",
            "give one finite weight >= 0 per synthetic image, and one above zero",
        )
    kept = weights > _NO_MASS * weights.sum()
    return points[kept], weights[kept] / weights[kept].sum()


def _moments(points: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean ``[d]`` and a root A of the unbiased covariance ``A^T A``,
    ``[min(n, d), d]``.
    """
    mean = mass @ points
    if len(points) == 1:
        return mean, torch.zeros_like(points)
    # 1 - sum w², but exact to more digits where one mass is nearly 1
    unbiased = (mass * (1 - mass)).sum()
    root = (points - mean).mul_((mass / unbiased).sqrt()[:, None])
    return mean, torch.linalg.qr(root, mode="r").R if len(root) > root.shape[1] else root


def _squared_radii(points: Tensor, k: int) -> Tensor:
    """Return the squared distance of each point to its k-th nearest other,
    ``[n]``; zero for k = 0.
    """
    blocks = points.split(max(1, _BLOCK // len(points)))
    return torch.cat(
        [
            squared_distances(block, points).topk(k + 1, largest=False).values[:, -1]
            for block in blocks
        ]
    )


def _balls(real: Tensor, synthetic: Tensor, k: int, weights: Tensor | None) -> dict[str, float]:
    """Return precision, recall, density and coverage from one pass
    over the distances, in blocks.
    """
    if k < 1:
        raise ConfigError(f"fidelity.k: {k} neighbours define no ball", "set it to at least 1")
    (real, _), (synthetic, mass) = _cloud(real), _cloud(synthetic, weights)
    k_real = min(k, len(real) - 1)
    slack = _TIE * real.var(0, correction=0).sum()
    radii = _squared_radii(real, k_real)
    closed, opened = radii + slack, (radii - slack).clamp_min(slack)
    reach = _squared_radii(synthetic, min(k, len(synthetic) - 1)) + slack
    precise, crowd = [], []
    recalled, covered = torch.zeros(2, len(real), dtype=torch.bool)
    size = max(1, _BLOCK // len(real))
    for block, block_reach in zip(synthetic.split(size), reach.split(size), strict=True):
        distances = squared_distances(block, real)
        precise.append((distances <= closed).any(1))
        recalled |= (distances <= block_reach[:, None]).any(0)
        inside = distances <= opened
        crowd.append(inside.sum(1))
        covered |= inside.any(0)
    return {
        "precision": min((mass @ torch.cat(precise).double()).item(), 1.0),
        "recall": recalled.double().mean().item(),
        "density": (mass @ torch.cat(crowd).double()).item() / max(k_real, 1),
        "coverage": covered.double().mean().item(),
    }
