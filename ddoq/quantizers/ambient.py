"""Clustering of classes too large for a Gram matrix:
blocks of matrix products find what may move, a loop moves it.
"""

from __future__ import annotations

import numpy as np

from ddoq.quantizers.cloud import PointCloud
from ddoq.quantizers.gram import jit


def lloyd(
    cloud: PointCloud, centroids: np.ndarray, max_iterations: int, tolerance: float
) -> np.ndarray:
    """Return ``[n]`` labels after Lloyd's algorithm from ``centroids`` ``[K, d]``.

    It stops where no point moves, or where an iteration lowers the distortion by less
    than ``tolerance`` of it.
    """
    labels, last = np.full(len(cloud), -1), np.inf
    for _ in range(max_iterations):
        distances = cloud.squared_distances(centroids)
        nearest = distances.argmin(1)
        closest = np.take_along_axis(distances, nearest[:, None], 1)[:, 0]
        _refill(nearest, closest * cloud.mass, len(centroids))
        distortion = float(cloud.mass @ closest)
        if np.array_equal(nearest, labels) or (
            tolerance and last - distortion < tolerance * distortion
        ):
            return nearest
        labels, last = nearest, distortion
        centroids = cloud.means(labels, len(centroids))
    return labels


def exchange(
    cloud: PointCloud, labels: np.ndarray, num: int, max_passes: int, tolerance: float
) -> np.ndarray:
    """Return ``[n]`` labels after Hartigan's exchange
    (see ``ddoq.quantizers.gram.exchange``) from ``labels``.

    A pass only looks at points whose lead over the second-best cell may have been used up by the
    centroids' drift since they were last seen (as in Hamerly 2010). The search ends after a pass
    over all points that lowers the distortion by less than ``tolerance`` of it.
    """
    labels = labels.copy()
    lead = np.zeros(len(cloud), np.float32)
    for number in range(max_passes):
        if number % 4 == 0:  # afterwards they are updated by every move, in single precision
            centroids = cloud.means(labels, num)
            masses, sizes = np.bincount(labels, cloud.mass, num), np.bincount(labels, minlength=num)
        seen = np.flatnonzero(lead <= 0)
        everything = 2 * len(seen) > len(cloud)
        seen = np.arange(len(cloud)) if everything else seen
        before = centroids.copy()
        gain, within = _exchange_pass(
            cloud.points,
            cloud.squared_norms,
            cloud.mass,
            cloud.inner(centroids, None if everything else seen),
            seen,
            centroids,
            labels,
            masses,
            sizes,
            lead,
        )
        if gain <= tolerance * within * len(seen) / len(cloud):
            if everything:
                break
            lead[:] = 0
        drift = np.sqrt(np.square(centroids - before).sum(1))
        lead -= drift[labels] + drift.max()
    return labels


def _refill(labels: np.ndarray, cost: np.ndarray, num: int) -> None:
    """Give every empty cell the costliest point of a cell that can spare one."""
    sizes = np.bincount(labels, minlength=num)
    order = iter(np.argsort(-cost))
    for k in np.flatnonzero(sizes == 0):
        i = next(i for i in order if sizes[labels[i]] > 1)
        sizes[labels[i]] -= 1
        labels[i] = k


@jit
def _exchange_pass(
    points, squared_norms, mass, products, seen, centroids, labels, masses, sizes, lead
):
    """Visit some points and move those that gain; change the last five arrays in place.

    Returns the distortion that was gained, and what the seen points contributed to it before.

    Args:
        points: ``[n, d]`` float32, centred.
        squared_norms: of the points, ``[n]`` float64.
        mass: of the points, ``[n]`` float64, sum 1.
        products: ``<x_i, c_k>`` of the m seen points at the start, ``[m, K]`` float32: proposals.
        seen: rows of ``points``, ``[m]`` int64.
        centroids: of the cells, ``[K, d]`` float32.
        labels: cell of each point, ``[n]`` int64.
        masses: of the cells, ``[K]`` float64.
        sizes: numbers of points of the cells, ``[K]`` int64.
        lead: of a point's own centroid over the next, a distance, ``[n]`` float32.
    """
    num, dim = centroids.shape
    norms, enter = np.empty(num, np.float32), np.empty(num, np.float32)
    mean_mass = mass[seen].mean()
    for k in range(num):
        norms[k] = (centroids[k] * centroids[k]).sum()
        enter[k] = masses[k] / (masses[k] + mean_mass)
    gain, within = 0.0, 0.0
    for row in range(len(seen)):
        i = seen[row]
        own, m, norm = labels[i], np.float32(mass[i]), np.float32(squared_norms[i])
        distance = max(norm + norms[own] - 2 * products[row, own], np.float32(0))
        within += m * distance
        if sizes[own] < 2:
            lead[i] = np.inf
            continue
        stay = distance * np.float32(masses[own] / (masses[own] - m))
        target, cheapest = own, np.float32(np.inf)
        for k in range(num):
            cost = (norm + norms[k] - 2 * products[row, k]) * enter[k]
            if cost < cheapest and k != own:
                target, cheapest = k, cost
        lead[i] = np.sqrt(max(cheapest, np.float32(0))) - np.sqrt(stay)
        if cheapest >= stay:
            continue
        to_own, to_target = np.float32(0), np.float32(0)
        for j in range(dim):
            a, b = points[i, j] - centroids[own, j], points[i, j] - centroids[target, j]
            to_own += a * a
            to_target += b * b
        saved = m * to_own * masses[own] / (masses[own] - m) - m * to_target * masses[target] / (
            masses[target] + m
        )
        if saved <= 1e-6 * m * to_own:
            continue
        gain += saved
        away, closer = np.float32(m / (masses[own] - m)), np.float32(m / (masses[target] + m))
        for j in range(dim):
            centroids[own, j] -= away * (points[i, j] - centroids[own, j])
            centroids[target, j] += closer * (points[i, j] - centroids[target, j])
        masses[own] -= m
        masses[target] += m
        sizes[own] -= 1
        sizes[target] += 1
        labels[i] = target
        lead[i] = 0
    return gain, within
