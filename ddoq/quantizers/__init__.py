"""Quantizers: from the latents of one class to K weighted points.

codebook = KMeans(num_centroids=10).fit(latents, generator=torch.Generator().manual_seed(0))
codebook.centroids, codebook.weights, codebook.distortion
"""

from ddoq.quantizers.allocation import allocate
from ddoq.quantizers.barycenter import Barycenter
from ddoq.quantizers.base import Quantizer
from ddoq.quantizers.cloud import PointCloud
from ddoq.quantizers.clvq import CLVQ
from ddoq.quantizers.codebook import ClassCodebooks, Codebook, codebook_from_centroids
from ddoq.quantizers.d4m import D4M
from ddoq.quantizers.kmeans import KMeans
from ddoq.quantizers.library import BisectingKMeans, FaissKMeans, GaussianMixture, SklearnKMeans
from ddoq.quantizers.selection import Herding, KCenter, KMedoids, Nearest, RandomSubset
from ddoq.quantizers.space import PCA, fit_in_space
from ddoq.quantizers.weighting import Clip, Mass, Paper, Power, Shrink, Uniform

__all__ = [
    "CLVQ",
    "D4M",
    "PCA",
    "Barycenter",
    "BisectingKMeans",
    "ClassCodebooks",
    "Clip",
    "Codebook",
    "FaissKMeans",
    "GaussianMixture",
    "Herding",
    "KCenter",
    "KMeans",
    "KMedoids",
    "Mass",
    "Nearest",
    "Paper",
    "PointCloud",
    "Power",
    "Quantizer",
    "RandomSubset",
    "Shrink",
    "SklearnKMeans",
    "Uniform",
    "allocate",
    "codebook_from_centroids",
    "fit_in_space",
]
