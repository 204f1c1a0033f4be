"""What names say: which split a folder or a file is, and in which order classes come."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORDS = {
    "train": "train training trn tr trainval",
    "validation": "validation valid val validate va dev development eval evaluation",
    "test": "test testing tst te holdout heldout",
}
_SPLIT = {word: split for split, words in _WORDS.items() for word in words.split()}
_FILLERS = frozenset(
    [
        "set",
        "sets",
        "data",
        "dataset",
        "image",
        "images",
        "img",
        "imgs",
        "photos",
        "samples",
        "split",
        "folder",
    ]
)


def split_of(name: str) -> tuple[str, bool] | None:
    """Return the split that a name stands for, and whether it says nothing else.

    ``Train␣``, ``training_set``, ``train_images``, ``trainset`` and ``train2017`` say
    nothing else; ``seg_train`` and ``chest-xray-test`` say of what. ``train_aug`` and
    ``test_notes`` stand for no split.
    """
    words = [word for word in re.findall(r"[a-z]+", name.lower()) if word not in _FILLERS]
    if not words:
        return None
    whole, last = (_SPLIT.get(_bare(word)) for word in ("".join(words), words[-1]))
    if whole:
        return whole, True
    return (last, False) if last else None


def is_filler(name: str) -> bool:
    """Return whether a name says no more than that there are images: ``images``, ``dataset``."""
    return all(word in _FILLERS for word in re.findall(r"[a-z]+", name.lower()))


def _bare(word: str) -> str:
    """Return ``train`` for ``trainset`` and ``tests`` for ``test``; other words as they are."""
    endings = (ending for ending in (*_FILLERS, "s") if word.removesuffix(ending) in _SPLIT)
    return next((word.removesuffix(ending) for ending in endings), word)


def by_number(name: str) -> list:
    """Return a key that sorts names by the numbers in them:
    ``2`` before ``10``, ``class 2`` before ``class 10``.
    """
    parts = re.split(r"([0-9]+)", name)
    texts = parts[::2]
    numbers = [(len(digits.lstrip("0")), digits.lstrip("0")) for digits in parts[1::2]]
    return [[text, *numbers[i : i + 1]] for i, text in enumerate(texts)] + [name]


def ordered(names: Iterable[str], class_order: str) -> list[str]:
    """Return class names as ``class_order`` sorts them:
    ``text``, as torchvision's ImageFolder, or ``number``.
    """
    return sorted(names, key=by_number if class_order == "number" else None)
