"""Pictures that are there more than once:
equal ones by their digests, nearly equal ones by a perceptual hash.

``pictures.parquet`` of an index has one row per usable image: id, digest, likeness.
"""

from __future__ import annotations

from collections.abc import Iterable
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
_SLACK = 2  # bits by which one may be farther than the nearest
_CANDIDATES = 3  # pictures with the nearest hashes that are compared pixel by pixel


def perceptual_hash(image: np.ndarray) -> int:
    """Return 64 bits that survive compression and scaling:
    which of two neighbours in a thumbnail is the brighter.

    (The difference hash of N. Krawetz, 2013.) Pictures of one colour have the hash 0.

    Args:
        image: uint8 ``[C, H, W]``.
    """
    grey = image[0] if len(image) == 1 else image.mean(0).astype(np.uint8)
    thumbnail = np.asarray(Image.fromarray(grey).resize(_GRID, Image.Resampling.BOX), np.int16)
    brighter = thumbnail[:, 1:] > thumbnail[:, :-1]
    return int.from_bytes(np.packbits(brighter).tobytes(), signed=True)


def write_pictures(
    folder: Path, usable: np.ndarray, digests: np.ndarray, likenesses: np.ndarray
) -> None:
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
    """Return the positions of equal pictures, those of each together,
    for pictures that are there more than once.
    """
    positions = np.flatnonzero(usable)
    order = positions[np.argsort(digests[positions], kind="stable")]
    starts = np.flatnonzero(np.append(True, digests[order][1:] != digests[order][:-1]))
    return [group for group in np.split(order, starts[1:]) if len(group) > 1]


def in_several(groups: Iterable[np.ndarray], values: np.ndarray) -> list[list[int]]:
    """Return those groups of positions whose ``values`` ``[n]``, labels for example,
    are not all the same.
    """
    return sorted(
        sorted(group.tolist()) for group in groups if len(set(values[group].tolist())) > 1
    )


def shared_with(digests: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which of some pictures, bool ``[n]``, are among others, too,
    given the digests of both.
    """
    return np.isin(digests, others)


def nearest_hashes(likenesses: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return pairs of positions whose hashes are near, int64 ``[p, 2]``: by the first,
    the nearest of each first.

    Args:
        likenesses: ``[n]``.
        others: ``[m]``. The cost is n × m comparisons of 64 bits: a second for CIFAR-10.
    """
    pairs = [np.empty((0, 2), np.int64)]
    others = others.view(np.uint64)
    for position, likeness in enumerate(likenesses.view(np.uint64) if len(others) else ()):
        bits = np.bitwise_count(others ^ likeness)
        least = bits.min()
        if least > _MOST_BITS:
            continue
        candidates = np.flatnonzero(bits <= min(least + _SLACK, _MOST_BITS))
        nearest = candidates[np.argsort(bits[candidates], kind="stable")[:_CANDIDATES]]
        pairs.append(np.stack([np.full(len(nearest), position), nearest], axis=1))
    return np.concatenate(pairs)


def look_alike(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Tell which pictures, uint8 ``[p, C, H, W]``, are nearly their others:
    brighter, compressed again, scaled.

    On CIFAR-10, 86 % of pictures are told from their JPEG of quality 75.
    """
    first, second = (_standardised(pixels) for pixels in (images, others))
    # Those of one colour have no correlation.
    is_equal = (images == others).reshape(len(images), -1).all(1)
    return is_equal | ((first * second).sum(1) >= _LEAST_CORRELATION)


def _standardised(images: np.ndarray) -> np.ndarray:
    """Return pictures as rows of mean 0 and norm 1, float32; those of one colour as zeros."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    rows -= rows.mean(1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
