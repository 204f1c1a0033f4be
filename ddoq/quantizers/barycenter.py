"""The Wasserstein-2 barycentre with K free atoms of equal mass: balanced k-means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import ot
import torch
from torch import Generator, Tensor

from ddoq.options import PositiveInt
from ddoq.quantizers.base import Quantizer, numpy_generator
from ddoq.quantizers.cloud import PointCloud
from ddoq.quantizers.compiled import compiled
from ddoq.quantizers.gram import cells, jit


@dataclass
class Barycenter(Quantizer):
    """The K points of mass 1/K that are nearest to the latents in W2:
    what centroids without weights stand for.

    The start is a random partition of a sample (of all latents, where there are few per point)
    into equal cells, improved by exchanging pairs of points. From there exact transport plans
    and their barycentric projections alternate (Cuturi & Doucet 2014), which alone would stop
    early: in high dimension a point's own pull holds it in its cell. Where K does not divide n,
    the plan splits points.

    Args:
        num_restarts: independent starts; the lowest W2 wins.
        max_iterations: passes of exchanges, and alternations with the transport plan.
    """

    num_restarts: PositiveInt = 1
    max_iterations: PositiveInt = 100

    def weights(self) -> Tensor:
        """Return 1/K for every point."""
        return torch.full((self.num_centroids,), 1 / self.num_centroids, dtype=torch.float64)

    def _centroids(self, cloud: PointCloud, generator: Generator) -> np.ndarray:
        rng = numpy_generator(generator)
        solutions = [self._from_one_start(cloud, rng) for _ in range(self.num_restarts)]
        return min(solutions, key=lambda pair: pair[0])[1]

    def _from_one_start(
        self, cloud: PointCloud, rng: np.random.Generator
    ) -> tuple[float, np.ndarray]:
        num = self.num_centroids
        size = min(len(cloud), max(_SAMPLE, _SAMPLE_PER_CENTROID * self.num_centroids))
        whole = size == len(cloud) and cloud.is_uniform
        part = (
            cloud if whole else cloud.subset(np.sort(rng.choice(len(cloud), size, replace=False)))
        )
        labels = rng.permutation(size) % num
        swap_pairs(part.gram, labels, num, self.max_iterations)
        centroids, cost, potentials = part.means(labels, num), np.inf, None
        if whole and size % num == 0:  # the cells are a plan already
            cost = float(cloud.mass @ cloud.distances_to_own(centroids, labels))
        for _ in range(self.max_iterations):
            rows, atoms, flow, new_cost, potentials = _plan(cloud, centroids, potentials)
            if new_cost > cost * (1 - 1e-4):
                break
            cost, centroids = new_cost, _project(cloud.points, rows, atoms, flow, num)
        return cost, centroids


#: Pairs are exchanged in a sample of this many points, or points per centroid.
_SAMPLE, _SAMPLE_PER_CENTROID = 512, 40


def _plan(cloud: PointCloud, centroids: np.ndarray, potentials):
    """Return the exact transport plan to equal masses as rows, atoms and flow,
    its cost, its potentials.
    """
    costs = cloud.squared_distances(centroids).astype(np.float64)
    equal = np.full(len(centroids), 1 / len(centroids))
    plan, log = ot.emd(
        cloud.mass,
        equal,
        costs,
        10_000_000,
        log=True,
        check_marginals=False,
        potentials_init=potentials,
    )
    rows, atoms = plan.nonzero()
    return rows, atoms, plan[rows, atoms], log["cost"], (log["u"], log["v"])


@compiled()
def _project(points, rows, atoms, flow, num):
    """Return the barycentric projection of a plan:
    every atom's mean over what it receives, ``[K, d]`` float32.

    Args:
        points: ``[n, d]`` float32.
        rows: points from which mass flows, ``[t]`` int64.
        atoms: atoms to which it flows, ``[t]`` int64; every atom receives some.
        flow: how much, ``[t]`` float64.
        num: K.
    """
    sums, masses = np.zeros((num, points.shape[1])), np.zeros(num)
    for t in range(len(flow)):
        masses[atoms[t]] += flow[t]
        row, point = sums[atoms[t]], points[rows[t]]
        for j in range(len(point)):
            row[j] += flow[t] * point[j]
    for k in range(num):
        sums[k] /= masses[k]
    return sums.astype(np.float32)


@jit
def swap_pairs(gram, labels, num, max_passes):
    """Exchange points of different cells as long as that lowers the within-cell squares;
    the cells keep their sizes.

    With s_a the sum of the points of cell a, swapping i in a with j in b moves it by
    ``u = x_j - x_i`` and s_b by ``-u``, and changes the within-cell squares by
    ``(2 <s_b, u> - |u|²) / n_b - (2 <s_a, u> + |u|²) / n_a``. Points of equal mass.

    Args:
        gram: of the centred points, ``[n, n]`` float32.
        labels: cell of each point, ``[n]`` int64; changed in place.
        num: of cells.
        max_passes: over all points.

    Returns:
        The number of passes.
    """
    n, infinity = len(labels), np.float32(np.inf)
    mass, half = np.ones(n), (np.diag(gram) / 2).astype(np.float32)
    own, other = np.empty(n, np.float32), np.empty(n, np.float32)
    inverse, changes = np.empty(n, np.float32), np.empty(n, np.float32)
    for number in range(max_passes):
        sums, _, _, sizes = cells(gram, mass, labels, num)
        for j in range(n):
            own[j], inverse[j] = sums[labels[j], j], 2 / sizes[labels[j]]
        moved = 0
        for i in range(n):
            a, row = labels[i], gram[i]
            sum_a, column, share = sums[a], sums[:, i].copy(), inverse[i]
            base = column[a]
            for j in range(n):  # short loops without branches, so that they vectorise
                other[j] = column[labels[j]]
            for j in range(n):
                length = half[i] + half[j] - row[j]  # |u|² / 2
                changes[j] = (own[j] - other[j] - length) * inverse[j] - (
                    sum_a[j] - base + length
                ) * share
            for j in range(n):
                if labels[j] == a:
                    changes[j] = infinity
            lowest = changes.min()
            if lowest >= np.float32(-1e-6) * half[i]:
                continue
            partner = np.argmin(changes)
            b = labels[partner]
            labels[i], labels[partner] = b, a
            inverse[i], inverse[partner] = inverse[partner], inverse[i]
            for j in range(n):
                step = gram[partner, j] - row[j]
                sums[a, j] += step
                sums[b, j] -= step
            for j in range(n):
                if labels[j] == a or labels[j] == b:
                    own[j] = sums[labels[j], j]
            moved += 1
        if moved == 0:
            return number
    return max_passes
