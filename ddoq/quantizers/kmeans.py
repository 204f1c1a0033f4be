"""k-means, and what D4M's released code does in its place."""

from __future__ import annotations

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Generator, Tensor

from ddoq.errors import ConfigError
from ddoq.quantizers.codebook import Codebook, codebook_from_centroids


def _seed(generator: Generator) -> int:
    return int(torch.randint(2**31 - 1, (), generator=generator))


class KMeans:
    """Lloyd's algorithm with greedy k-means++ starts: the quantizer of DDOQ.

    Args:
        num_centroids: K.
        num_restarts: independent starts; the lowest distortion wins.
        max_iterations: of one start.
        backend: ``sklearn`` or ``faiss`` (faster, plain k-means++ starts).
    """

    def __init__(self, num_centroids: int, num_restarts: int = 10, max_iterations: int = 300, backend: str = "sklearn"):
        self.num_centroids, self.num_restarts = num_centroids, num_restarts
        self.max_iterations, self.backend = max_iterations, backend

    def fit(self, latents: Tensor, generator: Generator) -> Codebook:
        """Quantize the latents of one class ``[n, *shape]``, n >= K."""
        flat = np.ascontiguousarray(latents.flatten(1).numpy(), dtype=np.float32)
        # One thread: with a second busy process, scikit-learn on two threads is 3.4 times slower than on one.
        with threadpool_limits(1):
            centres = {"sklearn": self._sklearn, "faiss": self._faiss}[self.backend](flat, _seed(generator))
        return codebook_from_centroids(latents, torch.from_numpy(centres).view(-1, *latents.shape[1:]))

    def _sklearn(self, flat: np.ndarray, seed: int) -> np.ndarray:
        from sklearn.cluster import KMeans as SklearnKMeans

        fitted = SklearnKMeans(
            self.num_centroids, n_init=self.num_restarts, max_iter=self.max_iterations, tol=0, random_state=seed
        ).fit(flat)
        return fitted.cluster_centers_

    def _faiss(self, flat: np.ndarray, seed: int) -> np.ndarray:
        try:
            import faiss
        except ImportError as error:
            raise ConfigError(
                "quantizer.backend=faiss, but faiss is not installed",
                "pip install 'ddoq[cpu]' (or 'ddoq[gpu]'), or set quantizer.backend=sklearn",
            ) from error
        engine = faiss.Kmeans(
            flat.shape[1],
            self.num_centroids,
            niter=self.max_iterations,
            nredo=self.num_restarts,
            seed=seed,
            min_points_per_centroid=1,
            max_points_per_centroid=len(flat),
        )
        engine.train(flat)
        return engine.centroids


class D4M:
    """The clustering of D4M's released code (Su et al., CVPR 2024), one class at a time.

    A single pass of scikit-learn's ``MiniBatchKMeans.partial_fit`` over the shuffled class in batches of
    ``km_expand * K`` latents; seed 0, whatever the run's seed. Its properties are kept, since they are what the
    published numbers contain: with ``km_expand=1`` (the shipped ImageNet script) the first K latents are the start,
    and the last ``n mod (km_expand * K)`` latents are never seen. (The release flushes them for one class only, that
    of the last image of the epoch.) Its running counts are not masses, so masses come from a final assignment pass.

    Args:
        num_centroids: K.
        km_expand: latents per batch and centroid.
    """

    def __init__(self, num_centroids: int, km_expand: int = 1):
        self.num_centroids, self.km_expand = num_centroids, km_expand

    def fit(self, latents: Tensor, generator: Generator) -> Codebook:
        """Quantize the latents of one class ``[n, *shape]``.

        Raises:
            ConfigError: the class is smaller than one batch; the released code fails there too.
        """
        from sklearn.cluster import MiniBatchKMeans

        batch = self.km_expand * self.num_centroids
        if len(latents) < batch:
            raise ConfigError(
                f"quantizer.km_expand: one batch of {batch} latents is more than a class of {len(latents)}",
                f"lower quantizer.km_expand (now {self.km_expand}) or ipc (now {self.num_centroids})",
            )
        shuffled = latents[torch.randperm(len(latents), generator=generator)].flatten(1).numpy()
        engine = MiniBatchKMeans(self.num_centroids, random_state=0, batch_size=batch, n_init="auto")
        with threadpool_limits(1):
            for start in range(0, len(shuffled) - batch + 1, batch):
                engine.partial_fit(shuffled[start : start + batch])
        centres = torch.from_numpy(engine.cluster_centers_.astype(np.float32))
        return codebook_from_centroids(latents, centres.view(-1, *latents.shape[1:]))
