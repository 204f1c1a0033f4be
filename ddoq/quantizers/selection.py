"""Codebooks made of real latents: coresets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Generator

from ddoq.errors import ConfigError
from ddoq.options import PositiveInt
from ddoq.quantizers.base import Quantizer, numpy_generator, seed
from ddoq.quantizers.cloud import PointCloud
from ddoq.quantizers.kmeans import KMeans


@dataclass
class RandomSubset(Quantizer):
    """K latents drawn without replacement: the baseline that every method has to beat."""

    selects = True

    def _centroids(self, cloud: PointCloud, generator: Generator) -> np.ndarray:
        rng = numpy_generator(generator)
        return cloud.points[rng.choice(len(cloud), self.num_centroids, replace=False, p=cloud.mass)]


@dataclass
class Nearest(Quantizer):
    """The real latent nearest to each k-means centroid, no latent twice.

    Args:
        num_restarts: of the k-means.
    """

    selects = True

    num_restarts: PositiveInt = 10

    def _centroids(self, cloud: PointCloud, generator: Generator) -> np.ndarray:
        distances = cloud.squared_distances(
            KMeans(self.num_centroids, self.num_restarts)._centroids(cloud, generator)
        )
        chosen = []
        for k in range(distances.shape[1]):
            chosen.append(int(distances[:, k].argmin()))
            distances[chosen[-1]] = np.inf
        return cloud.points[chosen]


@dataclass
class Herding(Quantizer):
    """Greedy mean matching (Welling 2009, as in iCaRL):
    each latent moves the chosen mean to the class mean.

    Deterministic; the first K of a larger selection are the selection for K.
    """

    selects = True

    def _centroids(self, cloud: PointCloud, generator: Generator) -> np.ndarray:
        # ``along``: <x_i, sum of the chosen>; the class mean is the origin.
        chosen, along = [], np.zeros(len(cloud))
        free = np.ones(len(cloud), bool)
        for _ in range(self.num_centroids):
            cost = np.where(free, cloud.squared_norms + 2 * along, np.inf)  # |s + x_i|² - |s|²
            chosen.append(int(cost.argmin()))
            free[chosen[-1]] = False
            along += cloud.inner(cloud.points[chosen[-1:]])[:, 0]
        return cloud.points[chosen]


@dataclass
class KCenter(Quantizer):
    """Greedy k-center (Gonzalez 1985): each latent is the farthest from those chosen.

    The first is the nearest to the mean. Deterministic;
    at most twice the smallest possible covering radius.
    """

    selects = True

    def _centroids(self, cloud: PointCloud, generator: Generator) -> np.ndarray:
        return cloud.points[farthest_first(cloud, self.num_centroids)]


def farthest_first(cloud: PointCloud, num: int) -> list[int]:
    """Return ``num`` rows of a cloud: the nearest to its mean, then each the farthest from those
    before.
    """
    chosen = [int(cloud.squared_norms.argmin())]
    closest = cloud.squared_distances(cloud.points[chosen])[:, 0]
    while len(chosen) < num:
        closest[chosen[-1]] = -1  # never twice, even among duplicates
        chosen.append(int(closest.argmax()))
        distances = cloud.squared_distances(cloud.points[chosen[-1:]])[:, 0]
        closest = np.where(closest < 0, -1, np.minimum(closest, distances))
    return chosen


@dataclass
class KMedoids(Quantizer):
    """The K latents with the lowest distortion that FasterPAM finds (Schubert & Rousseeuw 2021).

    Args:
        num_restarts: random starts; the lowest distortion wins.
    """

    selects = True

    num_restarts: PositiveInt = 1

    def _centroids(self, cloud: PointCloud, generator: Generator) -> np.ndarray:
        import kmedoids

        if not cloud.is_uniform:
            raise ConfigError(
                "KMedoids takes no sample_weight", "leave it out, or take another quantizer"
            )
        distances = cloud.squared_distances(cloud.points)
        results = [
            kmedoids.fasterpam(
                distances, self.num_centroids, init="random", random_state=seed(generator), n_cpu=1
            )
            for _ in range(self.num_restarts)
        ]
        return cloud.points[
            np.asarray(min(results, key=lambda result: result.loss).medoids, np.int64)
        ]
