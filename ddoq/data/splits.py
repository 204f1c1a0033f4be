"""Train, validation and test, stratified and seeded;
equal pictures never on two sides of a drawn split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ddoq.data.base import ImageDataset, Source


def assign_splits(
    source: Source, usable: np.ndarray, spec: ImageDataset, copies: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """Return the split of every image; ``""`` for those that are left out.

    Official splits are kept. Where there is no test split, ``test_fraction`` of each class becomes
    one; where there is no validation split, ``validation_fraction`` of each class's training images
    becomes one. Every class keeps at least one training image. Copies are drawn together, or stay
    in train where they cannot be.

    Args:
        source: the opened data set of n images.
        usable: bool ``[n]``, false for unreadable images.
        spec: gives the fractions, ``split_seed``, ``train_per_class`` and ``on_leak``.
        copies: positions of equal pictures, those of each together.
    """
    split = np.where(usable, source.split.astype("U10"), "")
    split[usable & (source.split == "")] = "train"
    if spec.on_leak == "skip":
        _leave_out_leaks(split, copies)
    copies_of = {int(position): group for group in copies for position in group}
    has = set(split[usable])
    by_class = np.argsort(source.labels, kind="stable")
    ends = np.cumsum(np.bincount(source.labels, minlength=len(source.class_names)))
    for label, members in enumerate(np.split(by_class, ends[:-1])):
        random = np.random.default_rng([spec.split_seed, label])
        train = random.permutation(members[split[members] == "train"])
        for part, fraction in (
            ("test", spec.test_fraction),
            ("validation", spec.validation_fraction),
        ):
            if part not in has:
                count = min(round(fraction * len(train)), len(train) - 1)
                drawn = _draw(train, count, copies_of)
                split[drawn] = part
                train = train[~np.isin(train, drawn)]
        if spec.train_per_class is not None:
            split[train[spec.train_per_class :]] = ""
    return split


def _draw(train: np.ndarray, count: int, copies_of: dict[int, np.ndarray]) -> np.ndarray:
    """Return the first ``count`` of the permuted training images, copies together.

    A picture whose copies are elsewhere too, in another class or split, stays; so does one whose
    copies are too many. Without copies this is ``train[:count]``.
    """
    drawn: list[int] = []
    for unit in _units(train.tolist(), copies_of):
        if len(drawn) + len(unit) <= count:
            drawn += unit
        if len(drawn) >= count:
            break
    return np.array(drawn, np.int64)


def _units(train: Iterable[int], copies_of: dict[int, np.ndarray]) -> Iterator[list[int]]:
    """Yield what can only be drawn together, in the order of the first of each."""
    members = set(train)
    seen: set[int] = set()
    for position in train:
        unit = copies_of[position].tolist() if position in copies_of else [position]
        if position not in seen and members.issuperset(unit):
            yield unit
        seen.update(unit)


def _leave_out_leaks(split: np.ndarray, copies: Iterable[np.ndarray]) -> None:
    """Leave out the pictures of other splits of which the test split has a copy."""
    for group in copies:
        if "test" in split[group]:
            split[group[split[group] != "test"]] = ""
