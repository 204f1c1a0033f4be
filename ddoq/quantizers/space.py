"""Quantizing in another space than the decoder's:
cells are found there, points are latents here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Generator, Tensor

from ddoq.options import OfStages, PositiveInt, Representative
from ddoq.quantizers.base import Quantizer, cross_fit
from ddoq.quantizers.cloud import PointCloud
from ddoq.quantizers.codebook import Codebook
from ddoq.quantizers.library import principal_components


@dataclass
class Latents:
    """The space of the latents themselves."""

    def __call__(self, latents: Tensor) -> Tensor:
        """Return ``latents``."""
        return latents


@dataclass
class PCA:
    """The leading principal components of a class's latents: fewer directions to overfit to.

    Args:
        num_components: components; all there are if fewer.
        representative: of a cell among the latents: the ``mean`` of its members, or the one
            ``nearest`` to its centroid.
    """

    num_components: PositiveInt = 64
    representative: OfStages[Representative] = "mean"

    def __call__(self, latents: Tensor) -> Tensor:
        """Map latents ``[n, *shape]`` to coordinates ``[n, num_components]``."""
        return torch.from_numpy(principal_components(PointCloud(latents), self.num_components))


def fit_in_space(
    quantizer: Quantizer,
    latents: Tensor,
    coordinates: Callable[[Tensor], Tensor],
    generator: Generator,
    representative: str = "mean",
    num_folds: int = 0,
) -> Codebook:
    """Quantize the latents of a class by their coordinates in another space.

    Args:
        quantizer: finds the cells there.
        latents: ``[n, *shape]``.
        coordinates: from row numbers ``[m]`` to the coordinates of these latents, ``[m, *]``.
        generator: all randomness comes from it.
        representative: what stands for a cell among the latents: ``mean``, that of its members, or
            ``nearest``, the latent whose coordinates are nearest to the centroid's. A latent that
            was selected always stands for itself.
        num_folds: cross-fit the held-out distortion, among the latents.

    Returns:
        A codebook of latents. Counts, weights and assignments are those of the cells in the other
        space; distortion, variance and ``nearest`` are measured among the latents, each against the
        point of its own cell.
    """
    cloud, everything = PointCloud(latents), torch.arange(len(latents))

    def fit(rows: Tensor) -> tuple[Codebook, np.ndarray]:
        codebook, part = quantizer.fit(coordinates(rows), generator), cloud.subset(rows.numpy())
        chosen = part.points[codebook.nearest.numpy()]
        if representative == "mean" and not quantizer.selects:
            means = part.means(codebook.assignments.numpy(), len(codebook.counts))
            chosen = np.where((codebook.counts > 0).numpy()[:, None], means, chosen)
        return codebook, chosen

    codebook, points = fit(everything)
    held_out = None
    if num_folds:
        held_out = cross_fit(
            cloud,
            lambda rows: fit(torch.from_numpy(rows))[1],
            quantizer.num_centroids,
            num_folds,
            generator,
        )
    return replace(
        codebook,
        centroids=cloud.to_tensor(points),
        nearest=torch.from_numpy(cloud.squared_distances(points).argmin(0)),
        distortion=float(cloud.mass @ cloud.distances_to_own(points, codebook.assignments.numpy())),
        variance=cloud.variance,
        held_out_distortion=held_out,
    )
