"""Pictures that are there more than once: equal ones by their digests, nearly equal ones by a perceptual hash.

``pictures.parquet`` of an index has one row per usable image: id, digest, likeness.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ddoq.utils.io import atomic_path

PICTURES = "pictures.parquet"
_GRID = (9, 8)  # of the thumbnail behind a hash: 8 × 8 differences of neighbours
_MOST_BITS = 10  # in which the hashes of nearly equal pictures may differ, of 64
_LEAST_CORRELATION = 0.98  # of their pixels
_CANDIDATES = 3  # pictures with the nearest hashes that are compared pixel by pixel


def perceptual_hash(image: np.ndarray) -> int:
    """Return 64 bits that survive compression and scaling: which of two neighbours in a thumbnail is the brighter.

    (The difference hash of N. Krawetz, 2013.) Pictures of one colour have the hash 0.

    Args:
        image: uint8 ``[C, H, W]``.
    """
    grey = image[0] if len(image) == 1 else image.mean(0).astype(np.uint8)
    thumbnail = np.asarray(Image.fromarray(grey).resize(_GRID, Image.Resampling.BOX), np.int16)
    brighter = thumbnail[:, 1:] > thumbnail[:, :-1]
    return int.from_bytes(np.packbits(brighter).tobytes(), signed=True)


def write_pictures(folder: Path, usable: np.ndarray, digests: np.ndarray, likenesses: np.ndarray) -> None:
    """Write the digests and hashes, ``[n]`` each, of the usable images, bool ``[n]``."""
    ids = np.flatnonzero(usable)
    table = pa.table({"id": ids, "digest": digests[ids], "likeness": likenesses[ids]})
    with atomic_path(folder / PICTURES) as temporary:
        pq.write_table(table, temporary)


def read_pictures(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ids, digests and hashes, int64 ``[n]`` each, of the usable images of an index."""
    table = pq.read_table(folder / PICTURES)
    ids, digests, likenesses = (table[name].to_numpy() for name in ("id", "digest", "likeness"))
    return ids, digests, likenesses


def groups_of_equals(digests: np.ndarray, usable: np.ndarray) -> list[np.ndarray]:
    """Return the positions of equal pictures, those of each together, for pictures that are there more than once."""
    positions = np.flatnonzero(usable)
    order = positions[np.argsort(digests[positions], kind="stable")]
    starts = np.flatnonzero(np.append(True, digests[order][1:] != digests[order][:-1]))
    return [group for group in np.split(order, starts[1:]) if len(group) > 1]


def in_several(groups: Iterable[np.ndarray], values: np.ndarray) -> list[list[int]]:
    """Return those groups of positions whose ``values`` ``[n]``, labels for example, are not all the same."""
    return sorted(sorted(group.tolist()) for group in groups if len(set(values[group].tolist())) > 1)


def shared_with(digests: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which of some pictures, bool ``[n]``, are among others, too, given the digests of both."""
    return np.isin(digests, others)


def nearest_hashes(likenesses: np.ndarray, others: np.ndarray) -> list[tuple[int, Sequence[int]]]:
    """Return for pictures whose hash is near another's: the position, and those of the nearest others, nearest first.

    Args:
        likenesses: ``[n]``.
        others: ``[m]``. The cost is n × m comparisons of 64 bits: a second for CIFAR-10.
    """
    near = []
    others = others.view(np.uint64)
    for position, likeness in enumerate(likenesses.view(np.uint64)):
        bits = np.bitwise_count(others ^ likeness)
        if not len(bits) or bits.min() > _MOST_BITS:
            continue
        candidates = np.flatnonzero(bits <= min(int(bits.min()) + 2, _MOST_BITS))
        order = np.argsort(bits[candidates], kind="stable")[:_CANDIDATES]
        near.append((position, candidates[order].tolist()))
    return near


def look_alike(image: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether two pictures, uint8 of one shape, are nearly the same: brighter, compressed again, scaled.

    On CIFAR-10, 86 % of pictures are told from their JPEG of quality 75.
    """
    first, second = (pixels.ravel().astype(np.float64) for pixels in (image, other))
    deviations = first.std() * second.std()
    if deviations == 0:
        return bool(np.array_equal(image, other))
    correlation = ((first - first.mean()) * (second - second.mean())).mean() / deviations
    return bool(correlation >= _LEAST_CORRELATION)
