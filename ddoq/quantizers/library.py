"""Clusterings of well-kept libraries, behind the same interface:
references, and variants that the literature uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn import cluster, decomposition, mixture
from torch import Generator

from ddoq.errors import ConfigError
from ddoq.options import PositiveInt
from ddoq.quantizers.base import Quantizer, seed
from ddoq.quantizers.cloud import PointCloud


@dataclass
class SklearnKMeans(Quantizer):
    """scikit-learn's k-means: Lloyd with greedy k-means++ starts, to convergence.
    Slower; for reference.

    Args:
        num_restarts: independent starts; the lowest distortion wins.
        max_iterations: of one start.
    """

    num_restarts: PositiveInt = 10
    max_iterations: PositiveInt = 300

    def _centroids(self, cloud: PointCloud, generator: Generator) -> np.ndarray:
        engine = cluster.KMeans(
            self.num_centroids,
            n_init=self.num_restarts,
            max_iter=self.max_iterations,
            tol=0,
            random_state=seed(generator),
        )
        return engine.fit(cloud.points, sample_weight=cloud.mass * len(cloud)).cluster_centers_


@dataclass
class FaissKMeans(Quantizer):
    """faiss's k-means: Lloyd from random starts, a fixed number of iterations.

    Args:
        num_restarts: independent starts; the lowest distortion wins.
        num_iterations: of one start.
        gpu: use all GPUs (needs a GPU build of faiss).
    """

    num_restarts: PositiveInt = 10
    num_iterations: PositiveInt = 25
    gpu: bool = False

    def _centroids(self, cloud: PointCloud, generator: Generator) -> np.ndarray:
        try:
            import faiss
        except ImportError as error:
            raise ConfigError(
                "quantizer=kmeans_faiss, but faiss is not installed",
                "pip install 'ddoq[cpu]' (or 'ddoq[gpu]'), or set quantizer=kmeans",
            ) from error
        if self.gpu and not getattr(faiss, "get_num_gpus", lambda: 0)():
            raise ConfigError(
                "quantizer.gpu=true, but faiss sees no GPU",
                "pip install 'ddoq[gpu]', or leave it out",
            )
        engine = faiss.Kmeans(
            cloud.points.shape[1],
            self.num_centroids,
            niter=self.num_iterations,
            nredo=self.num_restarts,
            seed=seed(generator),
            gpu=self.gpu,
            min_points_per_centroid=1,
            max_points_per_centroid=len(cloud),
        )
        engine.train(
            cloud.points, weights=None if cloud.is_uniform else cloud.mass.astype(np.float32)
        )
        return engine.centroids


@dataclass
class BisectingKMeans(Quantizer):
    """Divisive k-means (scikit-learn): the cell with the largest sum of squares is split
    in two until there are K.

    Args:
        num_restarts: of every split.
    """

    num_restarts: PositiveInt = 10

    def _centroids(self, cloud: PointCloud, generator: Generator) -> np.ndarray:
        distinct = np.unique(cloud.points, axis=0)
        if len(distinct) < self.num_centroids:  # scikit-learn would try to split a single point
            return np.resize(distinct, (self.num_centroids, distinct.shape[1]))
        engine = cluster.BisectingKMeans(
            self.num_centroids, n_init=self.num_restarts, random_state=seed(generator)
        )
        return engine.fit(cloud.points, sample_weight=cloud.mass * len(cloud)).cluster_centers_


@dataclass
class GaussianMixture(Quantizer):
    """The means of a Gaussian mixture (scikit-learn),
    the modes of MGD3 (Chan-Santiago et al. 2025).

    It is fitted to the leading principal components, where densities mean something; a point is the
    mean of the latents, weighted by their responsibilities.

    Args:
        num_components: principal components; all there are if fewer.
        covariance_type: ``diag``, ``spherical``, ``tied`` or ``full``.
        num_restarts: independent starts; the highest likelihood wins.
    """

    num_components: PositiveInt = 64
    covariance_type: Literal["diag", "spherical", "tied", "full"] = "diag"
    num_restarts: PositiveInt = 1

    def _centroids(self, cloud: PointCloud, generator: Generator) -> np.ndarray:
        if not cloud.is_uniform:
            raise ConfigError(
                "GaussianMixture takes no sample_weight", "leave it out, or take another quantizer"
            )
        if self.num_centroids == 1:  # the mean; scikit-learn refuses a single latent
            return np.zeros((1, cloud.points.shape[1]), np.float32)
        coordinates = principal_components(cloud, self.num_components)
        scale = max(coordinates.std(), 1e-12)
        engine = mixture.GaussianMixture(
            self.num_centroids,
            covariance_type=self.covariance_type,
            n_init=self.num_restarts,
            random_state=seed(generator),
            reg_covar=1e-4,
        )
        responsibilities = engine.fit(coordinates / scale).predict_proba(coordinates / scale)
        shares = responsibilities / np.maximum(responsibilities.sum(0), 1e-12)
        return (shares.T @ cloud.points).astype(np.float32)


def principal_components(cloud: PointCloud, num: int) -> np.ndarray:
    """Return the points along their leading principal components, ``[n, num]`` float32,
    or fewer columns.
    """
    num = min(num, *cloud.points.shape)
    return decomposition.PCA(
        num,
        svd_solver="covariance_eigh" if cloud.points.shape[1] <= 256 else "randomized",
        random_state=0,
    ).fit_transform(cloud.points)
