"""k-means: the optimal quantizer of DDOQ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.cluster.hierarchy import fcluster
from torch import Generator

from ddoq.options import PositiveInt
from ddoq.quantizers import ambient, gram
from ddoq.quantizers.base import Quantizer, numpy_generator
from ddoq.quantizers.cloud import PointCloud

#: Points for which the Gram matrix pays, whatever K;
#: and the most for which it is ever formed (1 GB).
_GRAM_PAYS, _GRAM_FITS = 2048, 16384
#: A large class starts from a sample: this share of it within these limits,
#: or so many points per centroid if more.
_SAMPLE_SHARE, _SAMPLE_LIMITS, _SAMPLE_PER_CENTROID = 1 / 16, (1024, 4096), 10
#: A search on a large class whose passes cost more than this many operations ends where one gains
#: less than half of what a single latent contributes to the distortion.
_COSTLY = 1e7
#: Starts that are exchanged, those that Lloyd leaves with the lowest distortion.
_EXCHANGED = 2
#: Exchanges lower the held-out distortion from so many latents per centroid on
#: (``make bench-quantizers ARGS=held_out``): at 25 and more they do in every case but one tie, at
#: 19 they tie, below they lose on photographs.
EXCHANGE_PAYS = 20


@dataclass
class KMeans(Quantizer):
    """Converged k-means: the K points with the lowest distortion that can be found.

    Classes of few latents are clustered in their Gram matrix, whatever the dimension
    (``ddoq.quantizers.gram``); large ones start from the solution of a sample and are refined with
    all points (``ddoq.quantizers.ambient``).

    Args:
        num_restarts: independent starts; the lowest distortion wins.
        max_iterations: of one search.
        start: ``ward`` (a cut through Ward's dendrogram; greedy k-means++ where masses differ),
            ``greedy_kmeans++``, ``kmeans++``, ``random`` (K points), or ``auto``: one start by
            Ward, the others greedy k-means++.
        search: ``lloyd``; ``exchange`` (Lloyd, then Hartigan's exchanges: a lower distortion in the
            sample); ``auto``: what has the lower distortion on held-out latents, which depends on
            the number of latents per centroid.
    """

    num_restarts: PositiveInt = 10
    max_iterations: PositiveInt = 300
    start: Literal["auto", "ward", "greedy_kmeans++", "kmeans++", "random"] = "auto"
    search: Literal["auto", "exchange", "lloyd"] = "auto"

    def _centroids(self, cloud: PointCloud, generator: Generator) -> np.ndarray:
        return self._centroids_and_distances(cloud, generator)[0]

    def _centroids_and_distances(
        self, cloud: PointCloud, generator: Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        rng, num = numpy_generator(generator), self.num_centroids
        exchanges = self.search == "exchange" or (
            self.search == "auto" and len(cloud) >= EXCHANGE_PAYS * self.num_centroids
        )
        if len(cloud) <= min(max(_GRAM_PAYS, 20 * num), _GRAM_FITS):
            labels = self._in_gram(cloud, rng, exchanges, ward=self.start == "auto")
            return cloud.means(labels, num), cloud.squared_distances_to_means(labels, num)
        size = max(
            int(np.clip(len(cloud) * _SAMPLE_SHARE, *_SAMPLE_LIMITS)), _SAMPLE_PER_CENTROID * num
        )
        size = min(size, max(_GRAM_FITS, num), len(cloud))
        sample = cloud.subset(np.sort(rng.choice(len(cloud), size, replace=False)))
        centroids = sample.means(self._in_gram(sample, rng, exchanges), num)
        tolerance = 0.5 / len(cloud) if cloud.points.size * num > _COSTLY else 0
        labels = ambient.lloyd(cloud, centroids, 1 if exchanges else self.max_iterations, tolerance)
        if exchanges:
            labels = ambient.exchange(cloud, labels, num, self.max_iterations, tolerance)
        return cloud.means(labels, num), None

    def _in_gram(
        self, cloud: PointCloud, rng: np.random.Generator, exchanges: bool, ward: bool = False
    ) -> np.ndarray:
        arguments = self.num_centroids, self.max_iterations
        starts = [
            self._start(cloud, rng, ward and number == 0) for number in range(self.num_restarts)
        ]
        partitions = [
            (gram.lloyd(cloud.gram, cloud.mass, labels, *arguments), labels) for labels in starts
        ]
        partitions.sort(key=lambda pair: pair[0])
        if exchanges:  # they take longer than Lloyd and hardly change who leads
            leading = [labels for _, labels in partitions[:_EXCHANGED]]
            partitions = [
                (gram.exchange(cloud.gram, cloud.mass, labels, *arguments), labels)
                for labels in leading
            ]
        return min(partitions, key=lambda pair: pair[0])[1]

    def _start(self, cloud: PointCloud, rng: np.random.Generator, ward: bool) -> np.ndarray:
        if (ward or self.start == "ward") and cloud.is_uniform:
            return ward_labels(cloud, self.num_centroids)
        if self.start == "random":
            centroids = cloud.points[
                rng.choice(len(cloud), self.num_centroids, replace=False, p=cloud.mass)
            ]
            return cloud.squared_distances(centroids).argmin(1)
        return plusplus_labels(cloud, self.num_centroids, rng, greedy=self.start != "kmeans++")


def plusplus_labels(
    cloud: PointCloud, num: int, rng: np.random.Generator, greedy: bool = True
) -> np.ndarray:
    """Return ``[n]`` labels of the cells around k-means++ points;
    greedy: the best of 2 + log K candidates each.
    """
    return gram.plusplus(
        cloud.gram, cloud.mass, rng.random((num, 2 + int(np.log(num)) if greedy else 1))
    )


def ward_labels(cloud: PointCloud, num: int) -> np.ndarray:
    """Return ``[n]`` labels of the partition into ``num`` cells
    (fewer where merges tie) that Ward's hierarchy has.
    """
    if num == 1 or len(cloud) == 1:
        return np.zeros(len(cloud), np.int64)
    return fcluster(cloud.dendrogram, num, "maxclust").astype(np.int64) - 1
