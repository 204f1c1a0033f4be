"""What ``quantize`` and ``curve`` share: one class at a time, several classes at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from ddoq.config.build import build
from ddoq.data.latents import StoredLatents
from ddoq.quantizers.base import Quantizer
from ddoq.quantizers.cloud import PointCloud
from ddoq.quantizers.codebook import Codebook
from ddoq.quantizers.measures import dispersion, effective_size, squared_distances, transport_cost
from ddoq.quantizers.space import fit_in_space
from ddoq.stages.runtime import Runtime
from ddoq.utils.console import progress_bar
from ddoq.utils.handover import Handover
from ddoq.utils.seeding import item_generator


def each_class(
    labels: list[int], work: Callable[[int], None], title: str, runtime: Runtime
) -> None:
    """Call ``work`` for every class that is this process's, on ``runtime.num_threads`` threads,
    each with one thread of BLAS, and wait for the other processes.

    (With a second busy thread, scikit-learn on two threads takes 3.4 times as long as on one.) What
    is done when one class fails stays done; its error is raised.
    """
    with progress_bar(title, len(labels)) as bar:
        pool = ThreadPoolExecutor(runtime.num_threads, initializer=lambda: threadpool_limits(1))
        try:
            for future in as_completed([pool.submit(work, label) for label in labels]):
                future.result()
                bar.advance()
        finally:
            pool.shutdown(cancel_futures=True)
    runtime.ranks.gather()


class ClassQuantizer:
    """Quantizes the classes of an ``encode`` artefact,
    in the space of the latents or in another one.

    Args:
        identity: of the node: ``quantizer``, ``space``, ``on_small_class`` and ``seed``.
        inputs: of the node: ``encode``, and ``features`` for ``space=features``.
        runtime: for the device.
    """

    def __init__(self, identity: Mapping[str, Any], inputs: Mapping[str, Path], runtime: Runtime):
        self.identity, self.device = identity, runtime.device
        self.latents = StoredLatents(inputs["encode"])
        self.features = (
            StoredLatents(inputs["features"], self.latents.labels) if "features" in inputs else None
        )
        self.num_classes = int(self.latents.labels.max()) + 1

    def of_class(self, label: int) -> tuple[np.ndarray, torch.Tensor]:
        """Return the positions ``[n]`` and latents ``[n, *shape]`` of a class, on the device."""
        positions, latents = self.latents.of_class(label)
        return positions, latents.to(self.device)

    def quantizer(self, label: int, num_centroids: int) -> tuple[Quantizer, torch.Generator]:
        """Return the quantizer of a class and its randomness."""
        identity = self.identity
        # The order of the epoch: the same for every class.
        order = item_generator(identity["seed"], "order", 0)
        built = build(
            identity["quantizer"],
            num_centroids=num_centroids,
            on_small_class=identity["on_small_class"],
        )
        return built.for_class(label, self.latents.labels, order), item_generator(
            identity["seed"], "quantize", label
        )

    def fit(
        self,
        label: int,
        num_centroids: int,
        positions: np.ndarray,
        latents: torch.Tensor | PointCloud,
        num_folds: int,
    ) -> Codebook:
        """Return the codebook of a class; ``latents`` may be a cloud
        where they are quantized as they are.
        """
        quantizer, generator = self.quantizer(label, num_centroids)
        space = self.identity["space"]
        if space["name"] == "latents":
            return quantizer.fit(latents, generator, num_folds=num_folds)
        if self.features is not None:
            features = self.features.at(positions).to(self.device)
            coordinates = features.__getitem__
        else:
            pca = build({key: value for key, value in space.items() if key != "representative"})

            def coordinates(rows):
                return pca(latents[rows])

        return fit_in_space(
            quantizer, latents, coordinates, generator, space["representative"], num_folds
        )


def require_codebook(
    codebook: Codebook, label: int, num_centroids: int, num: int, shape: tuple[int, ...]
) -> None:
    """Raise StageError where a quantizer did not solve its task.

    Args:
        codebook: of a class.
        label: of the class.
        num_centroids: K.
        num: latents of the class.
        shape: of a latent.
    """
    stage, remedy = f"quantize: class {label}", "take another quantizer, e.g. quantizer=kmeans"
    centroids = Handover(stage, "centroids", remedy)
    centroids.shape(codebook.centroids.shape, (num_centroids, *shape))
    centroids.finite(codebook.centroids)
    Handover(stage, "weights of centroids", remedy).masses(codebook.weights)
    Handover(stage, "latents in cells", remedy).count(int(codebook.counts.sum()), num)
    inside = (codebook.nearest >= 0) & (codebook.nearest < num)
    Handover(stage, "centroids with a nearest latent", remedy).count(
        int(inside.sum()), num_centroids
    )


def measures(codebook: Codebook, pieces: Iterable[torch.Tensor]) -> dict[str, float | None]:
    """Return what is known about a class's codebook, given its latents in pieces;
    see ``ddoq.quantizers.measures``.
    """
    costs = np.concatenate(
        [squared_distances(piece.cpu(), codebook.centroids).numpy() for piece in pieces]
    )
    return {
        "distortion": codebook.distortion,
        "held_out_distortion": codebook.held_out_distortion,
        "variance": codebook.variance,
        "w2_squared": transport_cost(costs, codebook.weights.numpy()),
        "w2_squared_uniform": transport_cost(costs, [1.0] * costs.shape[1]),
        "effective_size": effective_size(codebook.weights),
        "dispersion": dispersion(codebook.weights),
    }
