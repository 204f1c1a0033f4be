"""From Voronoi masses to loss weights. Every scheme returns weights of mean 1 within the class.

The paper passes its masses through a variance-reducing heuristic that could not be seen; these
schemes span what it can be, from the raw masses to none at all.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ddoq.options import Fraction, NotNegativeFloat, PositiveFloat


def _mean_one(weights: Tensor) -> Tensor:
    return weights / weights.mean()


@dataclass(frozen=True)
class Uniform:
    """All ones: centroids without weights, as in D4M."""

    def __call__(self, masses: Tensor) -> Tensor:
        """Map masses ``[K]`` (sum 1) to weights ``[K]`` (mean 1)."""
        return masses.new_ones(masses.shape)


@dataclass(frozen=True)
class Mass:
    """The masses themselves, ``w_k = K m_k``."""

    def __call__(self, masses: Tensor) -> Tensor:
        """Map masses ``[K]`` (sum 1) to weights ``[K]`` (mean 1)."""
        return _mean_one(masses)


@dataclass(frozen=True)
class Power:
    """``w_k ∝ m_k^exponent``.

    Args:
        exponent: 0 is uniform, 1 is mass, 0.5 the square root.
    """

    exponent: NotNegativeFloat = 0.5

    def __call__(self, masses: Tensor) -> Tensor:
        """Map masses ``[K]`` (sum 1) to weights ``[K]`` (mean 1)."""
        return _mean_one(masses**self.exponent)


@dataclass(frozen=True)
class Paper:
    """Square roots of the masses: the paper's eq. 34 as reconstructed from third-party code.

    The paper's heuristic is not public. The one implementation that claims to follow it
    (pytorch_segmentation_models_trainer) takes square roots "for variance reduction" and scales
    them to the sum √K. That scale is ``protocol.weights.normalize=paper``: here the mean is 1 as
    with all schemes, which makes this ``power`` with the exponent 0.5 under a name of its own.
    """

    def __call__(self, masses: Tensor) -> Tensor:
        """Map masses ``[K]`` (sum 1) to weights ``[K]`` (mean 1)."""
        return Power(0.5)(masses)


@dataclass(frozen=True)
class Clip:
    """Masses of mean 1, clipped to ``[low, high]``, rescaled to mean 1.

    Args:
        low: no mass weighs less.
        high: no mass weighs more.
    """

    low: NotNegativeFloat = 0.5
    high: PositiveFloat = 2.0

    def __call__(self, masses: Tensor) -> Tensor:
        """Map masses ``[K]`` (sum 1) to weights ``[K]`` (mean 1)."""
        return _mean_one(_mean_one(masses).clamp(self.low, self.high))


@dataclass(frozen=True)
class Shrink:
    """``w_k = (1 - amount) K m_k + amount``: a convex mix with uniform.

    Args:
        amount: share of uniform.
    """

    amount: Fraction = 0.5

    def __call__(self, masses: Tensor) -> Tensor:
        """Map masses ``[K]`` (sum 1) to weights ``[K]`` (mean 1)."""
        return (1 - self.amount) * _mean_one(masses) + self.amount
