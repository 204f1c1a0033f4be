"""Which images something is tried on: from one split,
and from the next where a class has too few there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def spread(labels: np.ndarray, num_first: int, num: int, per_class: int) -> np.ndarray:
    """Return the positions of images over a whole split,
    with further ones of classes that have too few of them.

    Args:
        labels: of all images, those of the preferred split first.
        num_first: images of that split.
        num: images to take from it, or ``per_class`` for each class, if that is more.
        per_class: images of each class at least, where there are as many in both splits.
    """
    num_classes = int(labels.max()) + 1
    num = max(num, per_class * num_classes)
    chosen = np.unique(np.linspace(0, num_first - 1, num).astype(int))
    counts = np.bincount(labels[chosen], minlength=num_classes)
    lacking = {label: per_class - count for label, count in enumerate(counts.tolist())}
    return np.concatenate([chosen, further(labels, num_first, chosen, lacking)])


def further(
    labels: np.ndarray, num_first: int, seen: np.ndarray, wanted: Mapping[int, int]
) -> np.ndarray:
    """Return the positions of images that were not seen, so many of each class,
    at random but the same every time.

    Args:
        labels: of all images, those of the preferred split first.
        num_first: images of that split.
        seen: positions to leave out.
        wanted: number of images by class; fewer where there are no more, none where it is negative.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[np.argsort(order >= num_first, kind="stable")]
    order = order[~np.isin(order, seen)]
    of_class = [
        order[labels[order] == label][:number] for label, number in wanted.items() if number > 0
    ]
    return np.concatenate([np.empty(0, int), *of_class])
