"""The latents of one class as the quantizers see them: a discrete measure sum_i m_i delta_{x_i}."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from torch import Tensor

from ddoq.errors import DataError
from ddoq.quantizers import gram
from ddoq.quantizers.compiled import compiled


class PointCloud:
    """Points in the plane of the algorithms:
    flat, float32, centred on their mean (distances are differences of norms).

    What depends on the dimension is computed once and shared by every quantizer and every K that is
    fitted to the same cloud: the Gram matrix and the Ward dendrogram. Inner products run on the
    device of the latents, all else on the CPU.

    Args:
        latents: ``[n, *shape]``, any dtype of numbers, n >= 1.
        sample_weight: ``[n]``, non-negative; by default every latent has the same mass.

    Attributes:
        points: ``[n, d]`` float32, centred; latents of mass zero are left out.
        mass: ``[n]`` float64, sum 1.
        mean: ``[d]`` float64, the barycentre.
        squared_norms: ``|x_i|²`` of the centred points, ``[n]`` float64.
        shape: of one latent.
        num_latents: n.
        rows: positions of the points among the latents, where some were left out; else ``None``.

    Raises:
        DataError: no latents, NaN or infinite values, or weights that are no weights.
    """

    def __init__(
        self, latents: Tensor | np.ndarray, sample_weight: Tensor | np.ndarray | None = None
    ):
        latents = torch.as_tensor(latents)
        if latents.ndim < 2 or not len(latents):
            raise DataError(
                f"latents of shape {tuple(latents.shape)} are no class of latents",
                "pass [n, *shape] with n of 1 or more",
            )
        self.shape, self.num_latents = tuple(latents.shape[1:]), len(latents)
        if sample_weight is None:
            mass = np.ones(len(latents))
        else:
            mass = torch.as_tensor(sample_weight).double().cpu().numpy()
        if (
            mass.shape != (len(latents),)
            or not np.isfinite(mass).all()
            or (mass < 0).any()
            or not mass.any()
        ):
            raise DataError(
                f"sample_weight of shape {mass.shape} does not weigh {len(latents)} latents",
                "pass one finite, non-negative weight per latent, not all zero",
            )
        kept = mass > 0
        flat = (
            latents.flatten(1)
            if kept.all()
            else latents.flatten(1)[torch.from_numpy(kept).to(latents.device)]
        )
        self.mass, self.rows = mass[kept] / mass.sum(), None if kept.all() else np.flatnonzero(kept)
        self.points = np.array(flat.float().cpu(), order="C")  # a copy, centred in place
        self.mean, self.squared_norms = _centre(self.points, self.mass)
        if not (self.squared_norms < _LARGEST).all():
            raise _not_numbers(flat.float())  # after the cast: a large double is infinite there
        self._on_device = (
            torch.from_numpy(self.points).to(latents.device)
            if latents.device.type != "cpu"
            else None
        )

    def __len__(self) -> int:
        return len(self.points)

    @property
    def is_uniform(self) -> bool:
        """Whether all points have the same mass."""
        return bool(np.allclose(self.mass, 1 / len(self)))

    @property
    def variance(self) -> float:
        """Mean squared distance to the barycentre."""
        return float(self.mass @ self.squared_norms)

    def subset(self, rows: np.ndarray) -> PointCloud:
        """Return the cloud of some points, which reuses the Gram matrix where there is one.

        Masses are rescaled.
        """
        part = object.__new__(PointCloud)
        part.rows, part.num_latents = None, len(rows)
        part.shape, part.mean, part.points = self.shape, self.mean, self.points[rows]
        part.mass = self.mass[rows] / self.mass[rows].sum()
        part.squared_norms = self.squared_norms[rows]
        part._on_device = (
            None if self._on_device is None else self._on_device[torch.from_numpy(rows)]
        )
        if "gram" in self.__dict__:
            part.gram = self.gram[np.ix_(rows, rows)]
        return part

    def inner(self, others: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return ``<x_i, z_k>`` ``[n, K]`` float32,
        for ``others`` ``[K, d]`` and all points or those in ``rows``.
        """
        if self._on_device is None:
            return (self.points if rows is None else self.points[rows]) @ others.T
        points = self._on_device if rows is None else self._on_device[torch.from_numpy(rows)]
        return (points @ torch.from_numpy(others).to(points).T).cpu().numpy()

    @cached_property
    def gram(self) -> np.ndarray:
        """``<x_i, x_j>``, ``[n, n]`` float32: n² d multiplications, once."""
        # NumPy sees that both sides are the same and computes one half.
        return self.inner(self.points)

    @cached_property
    def dendrogram(self) -> np.ndarray:
        """Ward's hierarchy in SciPy's form, ``[n - 1, 4]``;
        merging costs ``height² / 2n`` of distortion.

        It knows no masses: do not ask for it where they differ.
        """
        return (
            linkage(_condensed_distances(self.gram), "ward") if len(self) > 1 else np.empty((0, 4))
        )

    def means(self, labels: np.ndarray, num: int) -> np.ndarray:
        """Return the centroids of the cells ``labels`` ``[n]``, ``[num, d]`` float32;
        zero for empty cells.
        """
        return _cell_means(self.points, self.mass, labels, num)

    def distances_to_own(self, centroids: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return ``|x_i - z_{labels_i}|²``, ``[n]`` float64."""
        return _distances_to_own(self.points, centroids, labels)

    def squared_distances(self, centroids: np.ndarray) -> np.ndarray:
        """Return ``|x_i - z_k|²`` as ``[n, K]`` float32,
        for ``centroids`` ``[K, d]`` in the cloud's coordinates.
        """
        distances = self.inner(centroids)
        distances *= -2
        distances += self.squared_norms[:, None].astype(np.float32)
        distances += np.einsum("kd,kd->k", centroids, centroids)
        return np.maximum(distances, 0, out=distances)

    def squared_distances_to_means(self, labels: np.ndarray, num: int) -> np.ndarray:
        """Return ``|x_i - c_k|²`` to the centroids of the cells ``labels``
        from the Gram matrix alone, ``[n, num]``.
        """
        sums, squares, masses, _ = gram.cells(self.gram, self.mass, labels, num)
        return np.ascontiguousarray(gram.distances(self.gram, sums, squares, masses).T)

    def from_tensor(self, centroids: Tensor) -> np.ndarray:
        """Return points ``[K, *shape]`` in the cloud's coordinates."""
        return (centroids.flatten(1).double().cpu().numpy() - self.mean).astype(np.float32)

    def to_tensor(self, centroids: np.ndarray) -> Tensor:
        """Return points of the cloud's coordinates as latents ``[K, *shape]``."""
        return torch.from_numpy((centroids + self.mean).astype(np.float32)).view(-1, *self.shape)


#: Squared norms from which on squared distances may be infinite in float32.
_LARGEST = float(np.finfo(np.float32).max) / 4


def _not_numbers(flat: Tensor) -> DataError:
    bad = ~flat.isfinite().all(1)
    if not bad.any():
        return DataError(
            "latents are so large (1e18 or more) "
            "that their squared distances are infinite in float32",
            "check the encoder: latents should be of the order of 1",
        )
    return DataError(
        f"{int(bad.sum())} of {len(bad)} latents are NaN or infinite in float32, "
        f"the first at {int(bad.nonzero()[0])}",
        "check the encoder and its precision",
    )


@compiled()
def _centre(points, mass):
    """Subtract the mean of ``points`` ``[n, d]`` float32, weighted by ``mass`` ``[n]`` float64,
    in place; return it ``[d]``, and the squared norms of what is left ``[n]``, both float64.
    """
    n, dim = points.shape
    mean, norms = np.zeros(dim), np.zeros(n)
    for i in range(n):
        for j in range(dim):
            mean[j] += mass[i] * points[i, j]
    for i in range(n):
        for j in range(dim):
            points[i, j] -= mean[j]
    for i in range(n):
        norms[i] = _squared(points[i])
    return mean, norms


@compiled({"reassoc", "contract"})
def _squared(row):
    """Return the squared norm of a row ``[d]`` float32, summed in double precision."""
    total = 0.0
    for j in range(len(row)):
        total += float(row[j]) * float(row[j])
    return total


@compiled({"reassoc", "contract"})
def _distances_to_own(points, centroids, labels):
    """Return ``[n]`` float64: squared distances of ``points`` ``[n, d]`` float32
    to their ``centroids`` ``[K, d]`` float32, by ``labels`` ``[n]`` int64.
    """
    distances = np.zeros(len(points))
    for i in range(len(points)):
        row, centroid, total = points[i], centroids[labels[i]], 0.0
        for j in range(len(row)):
            difference = float(row[j]) - float(centroid[j])
            total += difference * difference
        distances[i] = total
    return distances


@compiled()
def _cell_means(points, mass, labels, num):
    """Return ``[num, d]`` float32: means of ``points`` ``[n, d]`` float32 with ``mass`` ``[n]``
    float64 in the cells ``labels`` ``[n]`` int64; zero for empty cells.
    """
    sums, masses = np.zeros((num, points.shape[1])), np.zeros(num)
    for i in range(len(points)):
        masses[labels[i]] += mass[i]
        row = sums[labels[i]]
        for j in range(points.shape[1]):
            row[j] += mass[i] * points[i, j]
    means = np.empty((num, points.shape[1]), np.float32)
    for k in range(num):
        scale = 1 / masses[k] if masses[k] > 0 else 0.0
        for j in range(points.shape[1]):
            means[k, j] = sums[k, j] * scale
    return means


@compiled()
def _condensed_distances(gram):
    """Return ``[n (n - 1) / 2]`` float64: distances of all pairs in SciPy's order,
    from ``<x_i, x_j>`` ``[n, n]`` float32.
    """
    n = len(gram)
    distances = np.empty(n * (n - 1) // 2)
    position = 0
    for i in range(n):
        for j in range(i + 1, n):
            distances[position] = np.sqrt(
                max(gram[i, i] + gram[j, j] - 2 * gram[i, j], np.float32(0))
            )
            position += 1
    return distances
