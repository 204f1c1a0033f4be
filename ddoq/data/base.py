"""What every data set provides: where its files are, a fingerprint of them, and its images one by one."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ddoq.errors import DataError
from ddoq.utils.io import file_digest

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Source:
    """An opened data set: labels in memory, images decoded on demand.

    ``split[i]`` is one of ``SPLITS``, or ``""`` where the data come without a split.
    """

    class_names: list[str]
    labels: np.ndarray  # int64 [n]
    split: np.ndarray  # str [n]
    read: Callable[[int], Image.Image]
    describe: Callable[[int], str]
    provenance: str
    wnids: list[str] | None = None

    def __post_init__(self) -> None:
        empty = sorted(set(range(len(self.class_names))) - set(np.unique(self.labels).tolist()))
        if empty:
            names = ", ".join(repr(self.class_names[c]) for c in empty[:5])
            raise DataError(
                f"dataset: no images in {len(empty)} of {len(self.class_names)} classes: {names}",
                "remove the empty classes, or add images to them",
            )


@dataclass
class ImageDataset(ABC):
    """Settings that all data sets share.

    Args:
        name: name in tables and folders.
        image_size: side of the square images in pixels (aspect-ratio-correct resize, centre crop).
        channels: 1 (grey) or 3 (RGB).
        train_per_class: use only this many training images per class (a stratified, seeded draw); ``None`` for all.
        validation_fraction: share of the training images held out for every choice that is made by accuracy.
        test_fraction: share of all images held out for testing, where the data come without a test split.
        split_seed: seed of these draws. It is not the run's seed: all runs share one split.
        on_bad_image: ``error`` stops at an unreadable image, ``skip`` leaves it out and lists it in the report.
        root: folder of the files; ``None`` searches the folders of ``paths.data``.
    """

    name: str
    image_size: int
    channels: int
    train_per_class: int | None = None
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    split_seed: int = 0
    on_bad_image: str = "error"
    root: str | None = None
    search: tuple[Path, ...] = field(default=(), repr=False)  # set by the caller from ``paths.data``

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash of the files' content, the same wherever they lie. Raises DataError if they are missing."""

    @abstractmethod
    def open(self) -> Source:
        """Open the data set."""


def hash_files(files: Iterable[Path], base: Path, content_limit: int = 2**30) -> str:
    """Return a hash over the relative names, sizes and, up to ``content_limit`` bytes in all, contents of files."""
    files = sorted(files)
    with_content = sum(file.stat().st_size for file in files) <= content_limit
    state = hashlib.sha256()
    for file in files:
        content = file_digest(file) if with_content else file.stat().st_size
        state.update(f"{file.relative_to(base).as_posix()}\0{file.stat().st_size}\0{content}\n".encode())
    return state.hexdigest()
