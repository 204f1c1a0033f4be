"""Codebooks made of real latents."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from ddoq.quantizers.codebook import Codebook, codebook_from_centroids, squared_distances
from ddoq.quantizers.kmeans import KMeans


class RandomSubset:
    """K latents drawn without replacement: the baseline that every method has to beat."""

    def __init__(self, num_centroids: int):
        self.num_centroids = num_centroids

    def fit(self, latents: Tensor, generator: Generator) -> Codebook:
        """Choose among the latents of one class ``[n, *shape]``, n >= K."""
        chosen = torch.randperm(len(latents), generator=generator)[: self.num_centroids]
        return codebook_from_centroids(latents, latents[chosen])


class Nearest:
    """The real latent nearest to each k-means centroid, no latent twice.

    Args:
        num_centroids: K.
        num_restarts: of the k-means.
    """

    def __init__(self, num_centroids: int, num_restarts: int = 10):
        self.kmeans = KMeans(num_centroids, num_restarts)

    def fit(self, latents: Tensor, generator: Generator) -> Codebook:
        """Choose among the latents of one class ``[n, *shape]``, n >= K."""
        distances = squared_distances(latents, self.kmeans.fit(latents, generator).centroids)
        chosen = []
        for k in range(distances.shape[1]):
            chosen.append(int(distances[:, k].argmin()))
            distances[chosen[-1]] = torch.inf
        return codebook_from_centroids(latents, latents[torch.tensor(chosen)])
