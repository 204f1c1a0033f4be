"""What all quantizers share: checks, small classes, masses, cross-fitting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor

from ddoq.errors import ConfigError, DataError
from ddoq.options import Given, PositiveInt, check_options
from ddoq.quantizers.cloud import PointCloud
from ddoq.quantizers.codebook import Codebook, codebook_from_centroids


@dataclass
class Quantizer(ABC):
    """From the latents of one class to K weighted points.

    Args:
        num_centroids: K.
        on_small_class: what to do with fewer than K latents: ``error``, or ``duplicate`` (every
            latent is a centroid and some are repeated with mass zero).
    """

    streams = False  # whether there is ``fit_stream``, which never holds a whole class
    selects = False  # whether its points are latents of the class, chosen among them

    num_centroids: Given[PositiveInt]
    on_small_class: Given[Literal["error", "duplicate"]] = field(default="error", kw_only=True)

    def __post_init__(self):
        check_options(self, "quantizer")

    def fit(
        self,
        latents: Tensor | np.ndarray | PointCloud,
        generator: Generator | None = None,
        sample_weight: Tensor | np.ndarray | None = None,
        num_folds: int = 0,
    ) -> Codebook:
        """Quantize the latents of one class.

        Args:
            latents: ``[n, *shape]``; or a ``PointCloud`` of them,
                so that several fits share what does not depend on K.
            generator: all randomness comes from it; by default one of seed 0.
            sample_weight: masses of the latents ``[n]``, equal by default.
            num_folds: cross-fit the held-out distortion with this many folds; 0 leaves it out.

        Raises:
            DataError: fewer latents than centroids, NaN or infinite values.
            ConfigError: weights that the method cannot take.
        """
        generator = generator or Generator().manual_seed(0)
        if isinstance(latents, PointCloud) and sample_weight is not None:
            raise ConfigError(
                "sample_weight: a PointCloud has its masses", "give sample_weight to the PointCloud"
            )
        cloud = latents if isinstance(latents, PointCloud) else PointCloud(latents, sample_weight)
        codebook = codebook_from_centroids(
            cloud, *self._solve(cloud, generator), weights=self.weights()
        )
        if num_folds:
            held_out = cross_fit(
                cloud,
                lambda rows: self._centroids(cloud.subset(rows), generator),
                self.num_centroids,
                num_folds,
                generator,
            )
            codebook = replace(codebook, held_out_distortion=held_out)
        return codebook

    def _solve(
        self, cloud: PointCloud, generator: Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return ``[K, d]`` points in the coordinates of the cloud,
        and the squared distances to them where known.
        """
        if len(cloud) >= self.num_centroids:
            return self._centroids_and_distances(cloud, generator)
        return self._of_small_class(cloud.points), None

    def _of_small_class(self, points: np.ndarray) -> np.ndarray:
        """Return the centroids of a class of fewer than K points ``[n, d]``, or raise DataError."""
        if self.on_small_class == "duplicate":
            return np.resize(points, (self.num_centroids, points.shape[1]))
        raise DataError(
            f"quantizer: {self.num_centroids} centroids for a class of {len(points)} latents",
            f"set ipc to at most {len(points)}, or on_small_class=duplicate",
        )

    @abstractmethod
    def _centroids(self, cloud: PointCloud, generator: Generator) -> np.ndarray:
        """Return ``[K, d]`` points for a cloud of at least K points."""

    def _centroids_and_distances(
        self, cloud: PointCloud, generator: Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the points, and ``|x_i - z_k|²`` ``[n, K]``
        where the search leaves them behind.
        """
        return self._centroids(cloud, generator), None

    def weights(self) -> Tensor | None:
        """Return masses ``[K]`` that the method fixes in advance;
        ``None``: those of the Voronoi cells.
        """
        return None

    def for_class(self, label: int, labels: np.ndarray, generator: Generator) -> Quantizer:
        """Return the quantizer for one class of many.
        Only a method that treats classes differently overrides this.

        Args:
            label: of the class.
            labels: of all training images ``[N]``.
            generator: the same for every class.
        """
        return self


def cross_fit(
    cloud: PointCloud,
    fit: Callable[[np.ndarray], np.ndarray],
    num_centroids: int,
    num_folds: int,
    generator: Generator,
) -> float | None:
    """Return the mean squared distance of every latent to centroids
    that were fitted without its fold.

    The distortion in the sample falls with K even on noise; this one does not.

    Args:
        cloud: all latents.
        fit: from the rows to fit to, to centroids ``[K, d]`` in the coordinates of the cloud.
        num_centroids: K.
        num_folds: folds.
        generator: draws the folds.

    Returns:
        The distortion, or ``None`` where a fold leaves fewer than K latents.
    """
    folds = np.array_split(torch.randperm(len(cloud), generator=generator).numpy(), num_folds)
    rests = [np.sort(np.concatenate(folds[:i] + folds[i + 1 :])) for i in range(num_folds)]
    if num_folds < 2 or len(folds[-1]) == 0 or min(map(len, rests)) < num_centroids:
        return None
    total = 0.0
    for fold, rest in zip(folds, rests, strict=True):
        total += float(cloud.mass[fold] @ cloud.subset(fold).squared_distances(fit(rest)).min(1))
    return total


def numpy_generator(generator: Generator) -> np.random.Generator:
    """Return NumPy's generator, seeded by torch's."""
    return np.random.default_rng(seed(generator))


def seed(generator: Generator) -> int:
    """Draw a seed for a library that wants an integer."""
    return int(torch.randint(2**31 - 1, (), generator=generator))
