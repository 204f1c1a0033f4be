"""K weighted points that stand for a class,
and the form in which the points of all classes are stored.
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

from ddoq.errors import StoreError
from ddoq.quantizers.cloud import PointCloud
from ddoq.utils.io import atomic_path, reading


@dataclass(frozen=True, repr=False, kw_only=True)
class Codebook:
    """The quantization of one class, ``nu = sum_k w_k delta_{z_k}``.

    Attributes:
        centroids: points z_k ``[K, *shape]``, float32.
        weights: masses w_k ``[K]``, float64, sum 1:
            those of the Voronoi cells, or 1/K where the method fixes them.
        counts: latents per Voronoi cell ``[K]``, int64.
        assignments: nearest centroid of every latent ``[n]``, int64; -1 for latents of mass zero.
        nearest: position within the class of the latent nearest to each centroid ``[K]``, int64.
        distortion: mean squared distance of a latent to its nearest centroid.
        variance: mean squared distance of a latent to the class mean (the distortion of K = 1).
        held_out_distortion: the same for latents that the centroids were not fitted to,
            where that was asked for.
    """

    centroids: Tensor
    weights: Tensor
    counts: Tensor
    assignments: Tensor
    nearest: Tensor
    distortion: float
    variance: float
    held_out_distortion: float | None = None

    def __repr__(self) -> str:
        """Return three lines: how many points, their masses, how well they fit."""
        share = f", {self.distortion / self.variance:.0%} of the variance" if self.variance else ""
        held_out = self.held_out_distortion
        outside = "" if held_out is None else f"; held out {held_out:.4g}"
        return (
            f"Codebook: {len(self.centroids)} points {tuple(self.centroids.shape[1:])} "
            f"for {len(self.assignments)} latents\n"
            f"  masses {self.weights.min():.3g} to {self.weights.max():.3g}\n"
            f"  distortion {self.distortion:.4g}{share}{outside}"
        )


def codebook_from_centroids(
    latents: Tensor | PointCloud,
    centroids: Tensor | np.ndarray,
    distances: np.ndarray | None = None,
    weights: Tensor | None = None,
) -> Codebook:
    """Assign every latent to its nearest centroid and weigh the cells.

    This final pass is where masses come from, whatever procedure found the centroids.

    Args:
        latents: ``[n, *shape]``, or a cloud of them.
        centroids: ``[K, *shape]``, or ``[K, d]`` in the coordinates of the cloud.
        distances: ``|x_i - z_k|²`` ``[n, K]`` float32, where they are known.
        weights: masses ``[K]`` in place of those of the cells.
    """
    cloud = latents if isinstance(latents, PointCloud) else PointCloud(latents)
    if isinstance(centroids, Tensor):
        points, centroids = cloud.from_tensor(centroids), centroids.float().cpu()
    else:
        points, centroids = centroids.astype(np.float32), cloud.to_tensor(centroids)
    distances = cloud.squared_distances(points) if distances is None else distances
    assignments = _certain_argmin(distances, cloud, points)
    closest = cloud.distances_to_own(points, assignments)
    masses = torch.from_numpy(np.bincount(assignments, cloud.mass, len(points)))
    counts, nearest = np.bincount(assignments, minlength=len(points)), distances.argmin(0)
    if cloud.rows is not None:
        everything = np.full(cloud.num_latents, -1)
        everything[cloud.rows] = assignments
        assignments, nearest = everything, cloud.rows[nearest]
    return Codebook(
        centroids=centroids,
        weights=masses if weights is None else weights,
        counts=torch.from_numpy(counts),
        assignments=torch.from_numpy(assignments),
        nearest=torch.from_numpy(nearest),
        distortion=float(cloud.mass @ closest),
        variance=cloud.variance,
    )


def _certain_argmin(distances: np.ndarray, cloud: PointCloud, points: np.ndarray) -> np.ndarray:
    """Return the nearest point of every row;
    where single precision cannot tell, in double precision.
    """
    nearest = distances.argmin(1)
    if distances.shape[1] > 1:
        first, second = np.partition(distances, 1, 1)[:, :2].T
        scale = cloud.squared_norms + np.square(points).sum(1).max()
        for i in np.flatnonzero(second - first < 1e-5 * scale):
            candidates = np.flatnonzero(distances[i] < first[i] + 1e-5 * scale[i])
            exact = np.square(points[candidates] - cloud.points[i], dtype=np.float64).sum(1)
            nearest[i] = candidates[exact.argmin()]
    return nearest


@dataclass(frozen=True, kw_only=True)
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
        """Return the rows of one class; ``positions`` maps positions within the class
        to the training split.
        """
        num = len(codebook.centroids)
        return ClassCodebooks(
            latents=codebook.centroids,
            labels=torch.full((num,), label),
            index=torch.arange(num),
            counts=codebook.counts,
            sources=torch.tensor(positions)[codebook.nearest],
        )

    @staticmethod
    def concatenate(parts: list[ClassCodebooks]) -> ClassCodebooks:
        """Join the rows of several classes."""
        return ClassCodebooks(
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in _FIELDS}
        )

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
        """Read what ``save`` wrote.

        Raises:
            StoreError: the file is damaged, or no file of codebooks.
        """
        with reading(path, f"remove {path.parent} and run again", StoreError):
            with safe_open(path, "pt") as file:
                codebooks = ClassCodebooks(**{name: file.get_tensor(name) for name in _FIELDS})
            integers = [getattr(codebooks, name) for name in _FIELDS[1:]]
            if {part.shape for part in integers} != {codebooks.latents.shape[:1]} or any(
                part.dtype != torch.int64 or (part < 0).any() for part in integers
            ):
                raise ValueError("its columns do not belong together")
        return codebooks


_FIELDS = ("latents", "labels", "index", "counts", "sources")
