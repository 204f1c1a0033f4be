"""Clustering in the Gram matrix:
everything after one symmetric product is independent of the dimension.

A class has far fewer latents than a latent has dimensions. With ``G = X X^T`` of the centred
latents, a cell's centroid ``c_k = (1/M_k) sum_{i in k} m_i x_i`` never has to be formed:

    |x_i - c_k|^2 = G_ii - 2 S_ki / M_k + Q_k / M_k^2,
    S_ki = sum_{j in k} m_j G_ji,   Q_k = sum_{i in k} m_i S_ki.

A point that changes its cell changes two rows of S. The loops run over points innermost, where they
vectorise, and release the GIL, so classes can be quantized by threads. Their arrays, for n points
in K (``num``) cells; where a loop moves points, it changes all but the first two in place:

    gram      G, ``[n, n]`` float32
    mass      m, ``[n]`` float64, sum 1
    labels    cell of each point, ``[n]`` int64
    sums      S, ``[K, n]`` float32
    squares   Q, ``[K]`` float64
    masses    M, ``[K]`` float64
    sizes     numbers of points of the cells, ``[K]`` int64
"""

from __future__ import annotations

import numpy as np

from ddoq.quantizers.compiled import compiled

# NaN and infinity keep their meaning: infinity marks what is not a candidate.
jit = compiled({"reassoc", "contract", "arcp", "nsz"})
#: A move has to gain more than this share of the point's own norm,
#: or rounding would move points to and fro.
_TOLERANCE = 1e-6


@jit
def plusplus(gram, mass, uniforms):
    """Return labels from greedy k-means++ (Arthur & Vassilvitskii 2007,
    with the best of several candidates).

    Args:
        gram: see above.
        mass: see above.
        uniforms: draws in [0, 1), ``[K, number of candidates]`` float64.
    """
    n, (num, trials) = len(mass), uniforms.shape
    diagonal = np.diag(gram).copy()  # read along its own cache lines
    labels = np.zeros(n, np.int64)
    closest = np.full(n, np.inf, np.float32)
    trial, best = np.empty(n, np.float32), np.empty(n, np.float32)
    for k in range(num):
        best_potential = np.inf
        cumulative = np.cumsum(mass if k == 0 else mass * closest)
        for t in range(1 if k == 0 else trials):
            chosen = min(
                np.searchsorted(cumulative, uniforms[k, t] * cumulative[-1], side="right"), n - 1
            )
            potential = 0.0
            for i in range(n):
                distance = max(diagonal[i] + diagonal[chosen] - 2 * gram[chosen, i], np.float32(0))
                trial[i] = min(distance, closest[i])
                potential += mass[i] * trial[i]
            if potential < best_potential:
                best_potential = potential
                trial, best = best, trial
        for i in range(n):
            if best[i] < closest[i]:
                labels[i] = k
                closest[i] = best[i]
    return labels


@jit
def cells(gram, mass, labels, num):
    """Return ``sums``, ``squares``, ``masses`` and ``sizes`` of the cells."""
    n = len(mass)
    sums, squares = np.zeros((num, n), np.float32), np.zeros(num)
    masses, sizes = np.zeros(num), np.zeros(num, np.int64)
    for i in range(n):
        k, m = labels[i], np.float32(mass[i])
        masses[k] += mass[i]
        sizes[k] += 1
        for j in range(n):
            sums[k, j] += m * gram[i, j]
    for i in range(n):
        squares[labels[i]] += mass[i] * sums[labels[i], i]
    return sums, squares, masses, sizes


@jit
def _move(i, target, gram, mass, labels, sums, squares, masses, sizes):
    """Move point i to the cell ``target``."""
    source, m = labels[i], mass[i]
    squares[source] += m * (m * gram[i, i] - 2 * sums[source, i])
    squares[target] += m * (m * gram[i, i] + 2 * sums[target, i])
    masses[source] -= m
    masses[target] += m
    sizes[source] -= 1
    sizes[target] += 1
    step = np.float32(m)
    for j in range(len(mass)):
        sums[source, j] -= step * gram[i, j]
        sums[target, j] += step * gram[i, j]
    labels[i] = target


@jit
def distances(gram, sums, squares, masses):
    """Return ``|x_i - c_k|^2`` as ``[K, n]`` float32; infinite for empty cells."""
    num, n = sums.shape
    diagonal = np.diag(gram).copy()
    squared = np.empty((num, n), np.float32)
    for k in range(num):
        if masses[k] <= 0:
            squared[k] = np.inf
            continue
        norm, scale = np.float32(squares[k] / masses[k] ** 2), np.float32(2 / masses[k])
        for i in range(n):
            squared[k, i] = max(diagonal[i] + norm - scale * sums[k, i], np.float32(0))
    return squared


@jit
def _within(gram, mass, squares, masses, sizes):
    """Return the distortion of a partition with its means as centroids,
    ``sum_i m_i G_ii - sum_k Q_k / M_k``.
    """
    total = 0.0
    for i in range(len(mass)):
        total += mass[i] * gram[i, i]
    for k in range(len(sizes)):
        if sizes[k] > 0:
            total -= squares[k] / masses[k]
    return max(total, 0.0)


@jit
def _fill(gram, mass, labels, sums, squares, masses, sizes):
    """Give every empty cell the point that lies farthest from its centroid,
    of a cell that can spare one.
    """
    for k in range(len(sizes)):
        if sizes[k] > 0:
            continue
        farthest, worst = -1, -1.0
        for i in range(len(mass)):
            own = labels[i]
            if sizes[own] > 1:
                centre = squares[own] / masses[own] ** 2
                cost = mass[i] * max(gram[i, i] - 2 * sums[own, i] / masses[own] + centre, 0.0)
                if cost > worst:
                    farthest, worst = i, cost
        _move(farthest, k, gram, mass, labels, sums, squares, masses, sizes)


@jit
def fill_empty(gram, mass, labels, num):
    """Give every empty cell a point; n >= K. Changes ``labels``."""
    sums, squares, masses, sizes = cells(gram, mass, labels, num)
    _fill(gram, mass, labels, sums, squares, masses, sizes)


@jit
def lloyd(gram, mass, labels, num, max_iterations):
    """Lloyd's algorithm, in which cells that run empty are filled again.

    Changes ``labels``; returns the distortion.
    """
    n = len(mass)
    sums, squares, masses, sizes = cells(gram, mass, labels, num)
    closest, nearest = np.empty(n, np.float32), np.empty(n, np.int64)
    for _ in range(max_iterations):
        if sizes.min() == 0:
            _fill(gram, mass, labels, sums, squares, masses, sizes)
        closest[:] = np.inf
        for k in range(num):
            norm, scale = np.float32(squares[k] / masses[k] ** 2), np.float32(2 / masses[k])
            for i in range(n):
                distance = norm - scale * sums[k, i]
                if distance < closest[i]:
                    closest[i] = distance
                    nearest[i] = k
        moved = 0
        for i in range(n):
            own = labels[i]
            stay = squares[own] / masses[own] ** 2 - 2 * sums[own, i] / masses[own]
            if nearest[i] != own and stay - closest[i] > _TOLERANCE * gram[i, i]:
                moved += 1
            else:
                nearest[i] = own
        if moved == 0:
            break
        if moved > n // 4:
            labels[:] = nearest
            sums, squares, masses, sizes = cells(gram, mass, labels, num)
        else:
            for i in range(n):
                if nearest[i] != labels[i]:
                    _move(i, nearest[i], gram, mass, labels, sums, squares, masses, sizes)
    if sizes.min() == 0:
        _fill(gram, mass, labels, sums, squares, masses, sizes)
    return _within(gram, mass, squares, masses, sizes)


@jit
def exchange(gram, mass, labels, num, max_passes):
    """Hartigan's exchange: move single points as long as that lowers the distortion.

    Changes ``labels``; returns the distortion.

    Moving i (mass m) from a to b changes the distortion by
    ``M_b m/(M_b+m) |x_i-c_b|^2 - M_a m/(M_a-m) |x_i-c_a|^2``: unlike Lloyd's rule it accounts for
    the point's own pull on its centroid, which in high dimension with few points per cell holds
    nearly every point where it is (Slonim, Aharoni & Crammer 2013). A pass screens all points at
    once, then visits those that seemed to gain, with sums that are up to date.
    """
    n = len(mass)
    diagonal, weight = np.diag(gram).copy(), mass.astype(np.float32)
    sums, squares, masses, sizes = cells(gram, mass, labels, num)
    best = np.empty(n, np.float32)
    for number in range(max_passes):
        best[:] = np.inf
        for k in range(num):
            norm = np.float32(squares[k] / masses[k] ** 2)
            scale = np.float32(2 / masses[k])
            total = np.float32(masses[k])
            for i in range(n):
                cost = (diagonal[i] + norm - scale * sums[k, i]) * total / (total + weight[i])
                if cost < best[i] and labels[i] != k:
                    best[i] = cost
        moved = 0
        for i in range(n):
            own, m = labels[i], mass[i]
            if sizes[own] < 2:
                continue
            distance = gram[i, i] - 2 * sums[own, i] / masses[own] + squares[own] / masses[own] ** 2
            stay = distance * masses[own] / (masses[own] - m)
            if best[i] >= stay - _TOLERANCE * gram[i, i]:
                continue
            target, cheapest = -1, stay - _TOLERANCE * gram[i, i]
            for k in range(num):
                if k != own:
                    centre = squares[k] / masses[k] ** 2
                    cost = (
                        (gram[i, i] - 2 * sums[k, i] / masses[k] + centre)
                        * masses[k]
                        / (masses[k] + m)
                    )
                    if cost < cheapest:
                        target, cheapest = k, cost
            if target >= 0:
                _move(i, target, gram, mass, labels, sums, squares, masses, sizes)
                moved += 1
        if moved == 0:
            break
        if number % 10 == 9:  # single precision drifts
            sums, squares, masses, sizes = cells(gram, mass, labels, num)
    return _within(gram, mass, squares, masses, sizes)
