"""Train, validation and test, stratified and seeded."""

from __future__ import annotations

import numpy as np

from ddoq.data.base import ImageDataset, Source


def assign_splits(source: Source, usable: np.ndarray, spec: ImageDataset) -> np.ndarray:
    """Return the split of every image; ``""`` for those that are left out.

    Official splits are kept. Where there is no test split, ``test_fraction`` of each class becomes one; where there
    is no validation split, ``validation_fraction`` of each class's training images becomes one. Every class keeps
    at least one training image.

    Args:
        source: the opened data set of n images.
        usable: bool ``[n]``, false for unreadable images.
        spec: gives the fractions, ``split_seed`` and ``train_per_class``.
    """
    split = np.where(usable, source.split.astype("U10"), "")
    split[usable & (source.split == "")] = "train"
    has = set(split[usable])
    by_class = np.argsort(source.labels, kind="stable")
    ends = np.cumsum(np.bincount(source.labels, minlength=len(source.class_names)))
    for label, members in enumerate(np.split(by_class, ends[:-1])):
        random = np.random.default_rng([spec.split_seed, label])
        train = random.permutation(members[split[members] == "train"])
        for part, fraction in (("test", spec.test_fraction), ("validation", spec.validation_fraction)):
            if part not in has:
                count = min(round(fraction * len(train)), len(train) - 1)
                split[train[: max(count, 0)]] = part
                train = train[max(count, 0) :]
        if spec.train_per_class is not None:
            split[train[spec.train_per_class :]] = ""
    return split
