"""What D4M's released code does in place of k-means (Su et al., CVPR 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Generator

from ddoq.errors import ConfigError
from ddoq.options import Given, PositiveInt
from ddoq.quantizers.base import Quantizer
from ddoq.quantizers.cloud import PointCloud


@dataclass
class D4M(Quantizer):
    """D4M's clustering, one class at a time:
    one pass of scikit-learn's ``MiniBatchKMeans.partial_fit``.

    The shuffled class comes in batches of ``km_expand * K`` latents, with seed 0 whatever the
    run's seed. Its properties are kept, since they are what the published numbers contain:
    with ``km_expand=1`` (the shipped ImageNet script) the first K latents are the start, and
    the last ``n mod (km_expand * K)`` latents are never seen, except those of one class, the
    class of the last image of the epoch. Its running counts are not masses: they miss latents
    and count others twice.

    Args:
        km_expand: latents per batch and centroid.
        leftover: ``released``: as described; ``flush``: the repaired variant, in which every class
            sees all its latents and a class smaller than a batch is one batch.
    """

    km_expand: PositiveInt = 1
    leftover: Literal["released", "flush"] = "released"
    is_last_class: Given[bool] = False

    def for_class(self, label: int, labels: np.ndarray, generator: Generator) -> D4M:
        """Return the quantizer of one class of many; ``labels`` are those of all images.

        The last image of a shuffled epoch is any image:
        its class is drawn with ``generator``, the same for every class.
        """
        last = labels[int(torch.randint(len(labels), (), generator=generator))]
        return D4M(
            self.num_centroids,
            self.km_expand,
            self.leftover,
            bool(last == label),
            on_small_class=self.on_small_class,
        )

    def _centroids(self, cloud: PointCloud, generator: Generator) -> np.ndarray:
        batch = self.km_expand * self.num_centroids
        flush = self.leftover == "flush" or self.is_last_class
        if len(cloud) < batch and self.leftover == "released":
            raise ConfigError(
                f"quantizer.km_expand: one batch of {batch} latents is more "
                f"than a class of {len(cloud)}, and the released code fails there",
                f"lower quantizer.km_expand (now {self.km_expand}), "
                "or set quantizer.leftover=flush",
            )
        uniform = cloud.is_uniform
        order = torch.randperm(len(cloud), generator=generator).numpy()
        engine = MiniBatchKMeans(
            self.num_centroids, random_state=0, batch_size=batch, n_init="auto"
        )
        stop = len(cloud) if flush else len(cloud) - batch + 1
        for rows in (order[start : start + batch] for start in range(0, stop, batch)):
            if len(rows) >= self.num_centroids or hasattr(engine, "cluster_centers_"):
                engine.partial_fit(
                    cloud.points[rows],
                    sample_weight=None if uniform else cloud.mass[rows] * len(cloud),
                )
        return engine.cluster_centers_
