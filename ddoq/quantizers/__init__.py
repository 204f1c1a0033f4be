"""Quantizers: from the latents of one class to K weighted points.

codebook = KMeans(num_centroids=10).fit(latents, generator=torch.Generator().manual_seed(0))
codebook.centroids, codebook.weights, codebook.distortion
"""

from ddoq.quantizers.codebook import ClassCodebooks, Codebook, codebook_from_centroids
from ddoq.quantizers.kmeans import D4M, KMeans
from ddoq.quantizers.selection import Nearest, RandomSubset
from ddoq.quantizers.weighting import Clip, Mass, Power, Shrink, Uniform

__all__ = [
    "D4M",
    "ClassCodebooks",
    "Clip",
    "Codebook",
    "KMeans",
    "Mass",
    "Nearest",
    "Power",
    "RandomSubset",
    "Shrink",
    "Uniform",
    "codebook_from_centroids",
]
