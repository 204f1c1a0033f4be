"""Competitive learning vector quantization: k-means of a stream, as the paper states it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from torch import Generator, Tensor

from ddoq.errors import ConfigError
from ddoq.options import PositiveInt, Range
from ddoq.quantizers import gram
from ddoq.quantizers.base import Quantizer, numpy_generator
from ddoq.quantizers.cloud import PointCloud
from ddoq.quantizers.codebook import Codebook
from ddoq.quantizers.compiled import compiled
from ddoq.quantizers.kmeans import plusplus_labels

_START = 16  # latents per centroid among which the start is sought


@dataclass
class CLVQ(Quantizer):
    """Mini-batch k-means as in the paper, which is CLVQ (Pagès 2015):
    every latent pulls its nearest centroid.

    The v-th latent that centroid k wins moves it by ``z_k += v^-step_exponent (x - z_k)``. With
    exponent 1 a centroid is the mean of what it won; exponents in (1/2, 1) forget the start faster
    and still satisfy the Robbins-Monro conditions ``sum γ = ∞``, ``sum γ² < ∞``. Every latent is
    used in every pass; masses come from a final pass. Memory does not depend on the number of
    latents: a batch, the centroids, and the sample in which greedy k-means++ finds the start.

    Args:
        batch_size: latents that are assigned at once; 1 is CLVQ to the letter.
        num_passes: over the data.
        step_exponent: 1 keeps means, less forgets the start faster.
    """

    streams = True

    batch_size: PositiveInt = 256
    num_passes: PositiveInt = 10
    step_exponent: Annotated[float, Range(0.5, 1, "(]")] = 1.0

    def _centroids(self, cloud: PointCloud, generator: Generator) -> np.ndarray:
        if not cloud.is_uniform:
            raise ConfigError(
                "CLVQ takes no sample_weight", "leave it out, or take another quantizer"
            )
        return self._train(lambda: [cloud.points], generator)

    def fit_stream(self, batches: Callable[[], Iterable[Tensor]], generator: Generator) -> Codebook:
        """Quantize latents that are read in pieces, several times.

        Args:
            batches: called once per pass; returns the latents of the class
                in pieces ``[m, *shape]``, always the same.
            generator: all randomness comes from it.
        """
        first = next(iter(batches())).float()
        centre = first.mean(0).flatten().numpy()  # distances are small differences of large norms

        def stream() -> Iterable[np.ndarray]:
            return (piece.flatten(1).float().numpy() - centre for piece in batches())

        codebook = _streamed_codebook(stream, self._train(stream, generator))
        centroids = torch.from_numpy(codebook.centroids.numpy() + centre).view(-1, *first.shape[1:])
        return replace(codebook, centroids=centroids)

    def _train(
        self, stream: Callable[[], Iterable[np.ndarray]], generator: Generator
    ) -> np.ndarray:
        rng = numpy_generator(generator)
        start = _reservoir(stream(), max(256, _START * self.num_centroids), rng)
        if len(start) < self.num_centroids:
            return self._of_small_class(start)
        cloud = PointCloud(torch.from_numpy(start))
        labels = plusplus_labels(cloud, self.num_centroids, rng)
        gram.fill_empty(cloud.gram, cloud.mass, labels, self.num_centroids)
        centroids = (cloud.means(labels, self.num_centroids) + cloud.mean).astype(np.float32)
        wins = np.zeros(self.num_centroids)
        for _ in range(self.num_passes):
            for piece in stream():
                order = rng.permutation(len(piece))
                for first in range(0, len(piece), self.batch_size):
                    batch = piece[order[first : first + self.batch_size]]
                    _compete(
                        batch, _nearest(batch, centroids)[0], centroids, wins, self.step_exponent
                    )
        return centroids


def _nearest(batch: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest centroid of every row,
    and all squared distances less the rows' own norms.
    """
    scores = np.square(centroids).sum(1) - 2 * batch @ centroids.T
    return scores.argmin(1), scores


def _reservoir(pieces: Iterable[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a uniform sample of ``size`` rows of a stream, or all there are (Vitter 1985)."""
    kept: list[np.ndarray] = []
    seen = 0
    for piece in pieces:
        for row in piece:
            seen += 1
            if len(kept) < size:
                kept.append(row.copy())
            elif (place := rng.integers(seen)) < size:
                kept[place] = row.copy()
    return np.stack(kept)


@compiled()
def _compete(batch, winners, centroids, wins, exponent):
    """Pull every row's centroid towards it by a step of ``wins^-exponent``.

    Args:
        batch: ``[m, d]`` float32.
        winners: nearest centroid of every row, ``[m]`` int64.
        centroids: ``[K, d]`` float32; changed in place.
        wins: how often each centroid was the nearest, ``[K]`` float64; changed in place.
        exponent: of the step.
    """
    for i in range(len(batch)):
        k = winners[i]
        wins[k] += 1
        step = np.float32(wins[k] ** -exponent)
        for j in range(batch.shape[1]):
            centroids[k, j] += step * (batch[i, j] - centroids[k, j])


def _streamed_codebook(
    stream: Callable[[], Iterable[np.ndarray]], centroids: np.ndarray
) -> Codebook:
    """Assign every latent in one more pass and weigh the cells,
    as ``codebook_from_centroids`` does in memory.
    """
    num = len(centroids)
    assignments, total, squares, seen, distortion = [], 0.0, 0.0, 0, 0.0
    closest, nearest = np.full(num, np.inf), np.zeros(num, np.int64)
    for piece in stream():
        piece_labels, scores = _nearest(piece, centroids)
        norms = np.square(piece, dtype=np.float64).sum(1)
        distances = scores + norms[:, None]
        better = distances.min(0) < closest
        closest = np.where(better, distances.min(0), closest)
        nearest = np.where(better, seen + distances.argmin(0), nearest)
        distortion += np.square(piece - centroids[piece_labels], dtype=np.float64).sum()
        total = total + piece.sum(0, dtype=np.float64)
        squares = squares + norms.sum()
        seen = seen + len(piece)
        assignments.append(piece_labels)
    labels = np.concatenate(assignments)
    counts = torch.from_numpy(np.bincount(labels, minlength=num))
    return Codebook(
        centroids=torch.from_numpy(centroids),
        weights=counts.double() / seen,
        counts=counts,
        assignments=torch.from_numpy(labels),
        nearest=torch.from_numpy(nearest),
        distortion=distortion / seen,
        variance=squares / seen - float(np.square(total / seen).sum()),
    )
