"""What covers a class: near centroids of its training images, or far from one another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from ddoq.quantizers.cloud import PointCloud
from ddoq.quantizers.kmeans import KMeans
from ddoq.quantizers.measures import squared_distances
from ddoq.quantizers.selection import farthest_first
from ddoq.selections.base import ByClass, InFeatures, Outputs


@dataclass(kw_only=True)
class Nearest(ByClass, InFeatures):
    """The candidates nearest to the centroids of the class's training images: k-means in features,
    one candidate per centroid, with the least sum of squared distances.

    Any candidates of a class may be kept, so that masses are counted anew.
    """

    def _kept(
        self, mine: Outputs, real: Outputs, label: int, num: int, generator: Generator
    ) -> Tensor:
        quantizer = KMeans(num, on_small_class="duplicate")
        centroids = quantizer.fit(real.features, generator).centroids
        cost = squared_distances(mine.features, centroids)
        return torch.from_numpy(linear_sum_assignment(cost.T.numpy())[1])


@dataclass(kw_only=True)
class KCenter(ByClass, InFeatures):
    """Greedy k-centers of the candidates in features: the one nearest to their mean, then each the
    farthest from those before (Gonzalez 1985).

    Any candidates of a class may be kept, so that masses are counted anew.
    """

    def _kept(
        self, mine: Outputs, real: Outputs, label: int, num: int, generator: Generator
    ) -> Tensor:
        return torch.tensor(farthest_first(PointCloud(mine.features), num))
