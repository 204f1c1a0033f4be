"""Mode guidance that stays near the manifold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ddoq.guidances.base import Shift, Step
from ddoq.guidances.mgd3 import MGD3
from ddoq.options import NotNegativeFloat, PositiveFloat, PositiveInt

_NUM_TANGENTS = 3  # directions of the manifold at a point
_WARM_UP = 5  # steps


@dataclass(kw_only=True)
class ManifoldGD(MGD3):
    """MGD3's pull, and one that removes what leaves the manifold around the image's point.

    ManifoldGD (CVPR 2026), from its released code. Points 0.05 to 0.15 away from the image's point
    (radii from 0.1 to ``radius``, which the code has the wrong way round, plus a uniform share of
    it) are noised to the step's time. Around the mean of the ``neighbours`` nearest to the sample,
    their three leading principal directions U are tangent, and the next sample is moved by
    ``-normal * tanh(distance / 0.2)`` along the unit vector of ``(I - U U') (sample - mean)``,
    distance being that to the nearest one. This part is not scaled by sigma, MGD3's is, by the
    standard deviation; whether the code scales it is not known here. Nor is its exponential for
    the first five steps: ``1 - exp(-k)`` at the k-th. The code does all of it to the conditional
    half alone, and draws anew at every step; here it is added to the next sample, and what is drawn
    is drawn once per image: white noise, of which each point sees a window of its own. Two windows
    are as uncorrelated as two draws, at a hundredth of the time. U comes from the Gram matrix of
    the neighbours; the code has the covariance, 4,096 squared, whose ridge of 1e-5 changes no
    direction.

    Args:
        normal: strength of what removes the normal part.
        num_nearby: points around the image's point.
        radius: of these points.
        neighbours: of the sample among them.
    """

    normal: NotNegativeFloat = 0.1
    num_nearby: PositiveInt = 300
    radius: PositiveFloat = 0.05
    neighbours: PositiveInt = 12

    def shift(self, step: Step) -> Shift:
        """Move the next sample."""
        sample = step.sample.flatten(1)
        nearby = self._nearby(step)
        outside, distance = normal_part(sample, nearby, min(self.neighbours, nearby.shape[1]))
        number = step.once("manifold started", lambda: step.number) - step.number + 1
        warm = 1 - math.exp(-number) if number <= _WARM_UP else 1.0
        length = warm * self.normal * torch.tanh(distance / 0.2)
        removed = -(length.unsqueeze(1) * normalize(outside)).view_as(step.sample)
        return super().shift(step) + Shift(mean=removed)

    def _nearby(self, step: Step) -> Tensor:
        """Return the noised points around each image's point, ``[B, n, d]``.

        The direction of a point and its noise are both normal: one draw has the sum's variance.
        """
        radii, noise = step.once(f"manifold {self.radius}", lambda: self._drawn(step))
        size = step.points[0].numel()
        spread = (1 - step.alpha + step.alpha * radii.square() / size).sqrt()
        windows = noise.unfold(1, size, 1)
        return step.alpha**0.5 * step.points.flatten(1).unsqueeze(1) + spread.unsqueeze(2) * windows

    def _drawn(self, step: Step) -> tuple[Tensor, Tensor]:
        """Return the distances of the points ``[B, n]`` and white noise ``[B, n + d - 1]``."""
        falling = torch.linspace(0.1, self.radius, self.num_nearby)
        length = self.num_nearby + step.points[0].numel() - 1
        radii, noises = [], []
        for generator in step.generators("manifold"):
            radii.append(falling + self.radius * torch.rand(self.num_nearby, generator=generator))
            noises.append(torch.randn(length, generator=generator))
        device = step.points.device
        return torch.stack(radii).to(device), torch.stack(noises).to(device)


def normal_part(sample: Tensor, nearby: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    """Return what of each sample, seen from the mean of its neighbours, is normal to them,
    ``[B, d]``, and the distance to the nearest one ``[B]``.

    Args:
        sample: ``[B, d]``.
        nearby: the points of each sample's manifold ``[B, n, d]``.
        neighbours: how many of them are taken.
    """
    distances = torch.cdist(sample.unsqueeze(1), nearby).squeeze(1)
    nearest, places = distances.topk(neighbours, largest=False)
    points = nearby.gather(1, places.unsqueeze(2).expand(-1, -1, nearby.shape[2]))
    mean = points.mean(1)
    centred, away = points - mean.unsqueeze(1), sample - mean
    # Eigenvectors of the Gram matrix give those of the covariance: U = X' V / sqrt(values).
    values, vectors = torch.linalg.eigh(centred @ centred.mT)
    values, vectors = values[:, -_NUM_TANGENTS:], vectors[:, :, -_NUM_TANGENTS:]
    rounding = 1e-10 * points.square().sum((1, 2)).unsqueeze(1)
    inverse = torch.where(values > rounding, values, torch.inf).rsqrt()
    tangents = centred.mT @ vectors * inverse.unsqueeze(1)
    along = tangents.mT @ away.unsqueeze(2)
    return away - (tangents @ along).squeeze(2), nearest[:, 0]
