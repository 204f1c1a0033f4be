"""K weighted points that stand for a class, and the measures that say how well.

With mu the empirical measure of the class's latents ``x_1..x_n`` and nu = sum_k w_k delta_{z_k}:
``W2^2(mu, nu)`` is smallest over w at the Voronoi masses, where it equals the distortion
``(1/n) sum_i min_k |x_i - z_k|^2`` (Graf & Luschgy 2000).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ddoq.utils.io import atomic_path

_CHUNK = 8192  # rows per distance block: 8192 × K doubles


@dataclass(frozen=True)
class Codebook:
    """The quantization of one class.

    Attributes:
        centroids: points ``[K, *shape]``, float32.
        counts: latents per Voronoi cell ``[K]``, int64.
        assignments: nearest centroid of every latent ``[n]``, int64.
        nearest: position within the class of the latent nearest to each centroid ``[K]``, int64.
        distortion: mean squared distance of a latent to its nearest centroid.
        variance: mean squared distance of a latent to the class mean (the distortion of K = 1).
    """

    centroids: Tensor
    counts: Tensor
    assignments: Tensor
    nearest: Tensor
    distortion: float
    variance: float

    @property
    def weights(self) -> Tensor:
        """Masses of the Voronoi cells ``[K]``, float64, sum 1."""
        return self.counts.double() / self.counts.sum()


def squared_distances(latents: Tensor, centroids: Tensor) -> Tensor:
    """Return ``|x_i - z_k|^2`` as float64 ``[n, K]``."""
    z = centroids.flatten(1).double()
    centre = z.mean(0)  # distances are small differences of large norms: centre first
    z = z - centre
    parts = []
    for block in latents.flatten(1).split(_CHUNK):
        x = block.double() - centre
        parts.append((x.square().sum(1, keepdim=True) - 2 * x @ z.T + z.square().sum(1)).clamp_min(0))
    return torch.cat(parts)


def codebook_from_centroids(latents: Tensor, centroids: Tensor) -> Codebook:
    """Assign every latent ``[n, *shape]`` to its nearest centroid ``[K, *shape]`` and count the cells.

    This final pass is where masses come from, whatever procedure found the centroids.
    """
    distances = squared_distances(latents, centroids)
    closest, assignments = distances.min(1)
    flat = latents.flatten(1).double()
    return Codebook(
        centroids=centroids.float(),
        counts=torch.bincount(assignments, minlength=len(centroids)),
        assignments=assignments,
        nearest=distances.argmin(0),
        distortion=closest.mean().item(),
        variance=(flat - flat.mean(0)).square().sum(1).mean().item(),
    )


def w2_squared(latents: Tensor, centroids: Tensor, weights: Tensor) -> float:
    """Return the exact squared Wasserstein-2 distance of the latents to the weighted points (network simplex).

    Args:
        latents: ``[n, *shape]``, each of mass 1/n.
        centroids: ``[K, *shape]``.
        weights: masses ``[K]``, sum 1.
    """
    import ot

    masses = weights.double().numpy()
    costs = squared_distances(latents, centroids).numpy()
    return float(ot.emd2(np.full(len(costs), 1 / len(costs)), masses / masses.sum(), costs, numItermax=10_000_000))


def effective_size(weights: Tensor) -> float:
    """Return Kish's effective number of points, ``(sum w)^2 / sum w^2``."""
    return (weights.sum().square() / weights.square().sum()).item()


@dataclass(frozen=True)
class ClassCodebooks:
    """The codebooks of all classes, flat: one row per point. Classes may have different K.

    Attributes:
        latents: centroids ``[M, *shape]``.
        labels: class of each point ``[M]``.
        index: number of the point within its class ``[M]``.
        counts: latents in the Voronoi cell ``[M]``.
        sources: position of the nearest training image ``[M]``.
    """

    latents: Tensor
    labels: Tensor
    index: Tensor
    counts: Tensor
    sources: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def rows(codebook: Codebook, label: int, positions: np.ndarray) -> ClassCodebooks:
        """Return the rows of one class; ``positions`` maps positions within the class to the training split."""
        num = len(codebook.centroids)
        return ClassCodebooks(
            codebook.centroids,
            torch.full((num,), label),
            torch.arange(num),
            codebook.counts,
            torch.tensor(positions)[codebook.nearest],
        )

    @staticmethod
    def concatenate(parts: list[ClassCodebooks]) -> ClassCodebooks:
        """Join the rows of several classes."""
        return ClassCodebooks(*(torch.cat([getattr(part, name) for part in parts]) for name in _FIELDS))

    def save(self, path: Path, config: dict) -> None:
        """Write one safetensors file that carries the quantizer's configuration in its metadata."""
        with atomic_path(path) as temporary:
            save_file(
                {name: getattr(self, name).contiguous() for name in _FIELDS},
                temporary,
                metadata={"config": json.dumps(config)},
            )

    @staticmethod
    def load(path: Path) -> ClassCodebooks:
        """Read what ``save`` wrote."""
        with safe_open(path, "pt") as file:
            return ClassCodebooks(*(file.get_tensor(name) for name in _FIELDS))


_FIELDS = ("latents", "labels", "index", "counts", "sources")
