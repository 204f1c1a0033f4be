"""audit: what can be wrong with data that are all readable:
pictures that are on both sides of a split.

Nothing is made from an audit, so its version may rise
and old data be looked at again without any other key changing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ddoq.data.copies import look_alike, nearest_hashes, read_pictures, shared_with
from ddoq.errors import StoreError
from ddoq.pipeline.graph import Node
from ddoq.stages.runtime import Runtime
from ddoq.utils.console import progress_bar
from ddoq.utils.handover import Handover

#: Where a picture is measured or chosen by, and where it must not be as well.
_PAIRS = (("test", "train"), ("test", "validation"), ("validation", "train"))
_MOST_NAMED = 20  # pictures listed for each pair of splits
_MOST_BYTES = 2**29  # of a split that is read whole
_BATCH_SIZE = 1024  # pairs that are compared at once


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write nothing but facts: ``leaks``, one entry per pair of splits.

    ``equal`` counts the pictures of the split ``of`` whose pixels the split ``within`` has as well,
    ``alike`` those that are nearly equal to one of it (see ``ddoq.data.copies``); ``pictures``
    names the first of both.
    """
    sides = {
        split: _Side(inputs["index"], split, runtime) for split in ("train", "validation", "test")
    }
    return {"leaks": [_leak(sides[of], sides[within]) for of, within in _PAIRS]}


class _Side:
    """The pictures of one split: ``digests`` and ``likenesses`` ``[n]``,
    names and pixels by position.
    """

    def __init__(self, index: Path, split: str, runtime: Runtime):
        self.split, self.images = split, runtime.images(index, split)
        ids, digests, likenesses = read_pictures(index)
        rows = np.searchsorted(ids, self.images.ids)
        num_known = np.isin(self.images.ids, ids).sum()
        remedy = f"remove {index} and run again"
        Handover(str(index), "digests of pictures", remedy, StoreError).count(num_known, len(rows))
        self.digests, self.likenesses = digests[rows], likenesses[rows]
        self._describe = runtime.dataset.opened.describe
        self._all = partial(runtime.tensors, index, split)

    def name(self, position: int) -> str:
        return self._describe(int(self.images.ids[position]))

    def pixels(self, positions: np.ndarray) -> np.ndarray:
        """Return images, uint8 ``[n, C, H, W]``;
        those of small splits from memory, where students want them too.
        """
        if len(self.images) * self.images.spec.channels * self.images.size**2 <= _MOST_BYTES:
            return self._all()[0].numpy()[positions]
        return np.stack([self.images[int(position)][1].numpy() for position in positions])


def _leak(of: _Side, within: _Side) -> dict[str, Any]:
    is_equal = shared_with(of.digests, within.digests)
    equal = np.flatnonzero(is_equal)
    alike = _alike(of, within, np.flatnonzero(~is_equal))
    first_equal = {
        digest: position for position, digest in reversed(list(enumerate(within.digests.tolist())))
    }
    pictures = [
        f"{of.name(position)} = {within.name(first_equal[int(of.digests[position])])}"
        for position in equal[:_MOST_NAMED]
    ]
    pictures += [
        f"{of.name(position)} ~ {within.name(other)}" for position, other in alike[:_MOST_NAMED]
    ]
    return {
        "of": of.split,
        "within": within.split,
        "num": len(of.digests),
        "equal": len(equal),
        "alike": len(alike),
        "pictures": pictures,
    }


def _alike(of: _Side, within: _Side, positions: np.ndarray) -> list[tuple[int, int]]:
    """Return those positions whose picture is nearly one of the other split,
    each with the position of that one.
    """
    near = nearest_hashes(of.likenesses[positions], within.likenesses)
    near[:, 0] = positions[near[:, 0]]
    alike: dict[int, int] = {}
    with progress_bar(f"{of.split} pictures like {within.split} ones", len(near)) as bar:
        for start in range(0, len(near), _BATCH_SIZE):
            pairs = near[start : start + _BATCH_SIZE]
            told = look_alike(of.pixels(pairs[:, 0]), within.pixels(pairs[:, 1]))
            for position, other in pairs[told].tolist():
                alike.setdefault(position, other)
            bar.advance(len(pairs))
    return list(alike.items())
