"""What every data set provides: where its files are, a fingerprint of them,
and its images one by one.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from ddoq.data.deep import DeepImageError
from ddoq.errors import DataError
from ddoq.options import Fraction, Given, NotNegativeInt, PositiveInt, check_options
from ddoq.utils.digests import Digests
from ddoq.utils.io import READABLE

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "validation", "test")
_MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Source:
    """An opened data set: labels in memory, images decoded on demand.

    ``split[i]`` is one of ``SPLITS``, or ``""`` where the data come without a split.
    ``unexpected_counts`` says in words where a published data set has another number of images than
    its authors state. ``unusable`` has a line for whatever is named like an image and is no file
    that could be read, and ``ignored`` counts what else lies among the images, by kind: both are
    missing from ``labels``. ``where`` says in words where each split was found, ``notes`` what else
    was decided about splits and classes.
    """

    class_names: list[str]
    labels: np.ndarray  # int64 [n]
    split: np.ndarray  # str [n]
    read: Callable[[int], Image.Image]
    describe: Callable[[int], str]
    provenance: str
    unexpected_counts: str | None = None
    unusable: Sequence[str] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        outside = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.class_names)))
        if len(outside):
            raise DataError(
                f"dataset: {self.describe(int(outside[0]))} has label {self.labels[outside[0]]}, "
                f"and there are {len(self.class_names)} classes",
                "correct the label, or leave out images without one",
            )
        empty = sorted(set(range(len(self.class_names))) - set(np.unique(self.labels).tolist()))
        if empty:
            names = ", ".join(repr(self.class_names[c]) for c in empty[:5])
            raise DataError(
                f"dataset: no images in {len(empty)} of {len(self.class_names)} classes: {names}",
                "remove the empty classes, or add images to them",
            )


class BadImageError(DataError):
    """The bytes of an image are no image; ``cause`` names the image and says why."""


class OneClassError(DataError):
    """The data have one class: mostly because a folder too high or too low was given."""


@dataclass
class ImageDataset(ABC):
    """Settings that all data sets share.

    Args:
        name: name in tables and folders.
        image_size: side of the square images in pixels.
        channels: 1 (grey) or 3 (RGB).
        train_per_class: use only this many training images per class (a stratified, seeded draw);
            ``None`` for all.
        validation_fraction: share of the training images held out for every choice
            that is made by accuracy.
        test_fraction: share of all images held out for testing,
            where the data come without a test split.
        split_seed: seed of these draws. It is not the run's seed: all runs share one split.
        resize: ``crop`` scales the shorter side and crops the longer one about the centre,
            ``squash`` scales both sides whatever the aspect ratio.
        on_bad_image: ``error`` stops where images are no images, ``skip`` leaves them out and lists
            them in the report. It is about what the files hold: a file that the machine cannot read
            stops the run in any case.
        pixel_range: values of 16-bit and float pictures that become black and white, for all of
            them alike; ``None``: found when the data are indexed, see
            ``ddoq.data.deep.common_range``.
        on_leak: test pictures that are training pictures, too: ``keep`` counts and names them,
            ``skip`` leaves their copies out of training, ``error`` stops.
        root: folder of the files; ``None`` searches the folders of ``paths.data``.
    """

    name: str
    image_size: PositiveInt
    channels: Literal[1, 3]
    _: KW_ONLY
    train_per_class: PositiveInt | None = None
    validation_fraction: Fraction = 0.1
    test_fraction: Fraction = 0.2
    split_seed: NotNegativeInt = 0
    resize: Literal["crop", "squash"] = "crop"
    on_bad_image: Literal["error", "skip"] = "error"
    pixel_range: Sequence[float] | None = None
    on_leak: Literal["keep", "skip", "error"] = "keep"
    root: str | None = None
    #: From ``paths.data``.
    search: Given[tuple[Path, ...]] = field(default=(), repr=False)
    digests: Given[Digests] = field(default_factory=Digests, repr=False)  # of a store, if any

    def __post_init__(self) -> None:
        check_options(self, "dataset")

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash of the files' content, the same wherever they lie.

        Raises DataError if they are missing.
        """

    @abstractmethod
    def open(self) -> Source:
        """Open the data set."""

    @cached_property
    def opened(self) -> Source:
        """The data set, opened once per process: listing a million files takes seconds."""
        return self.open()

    def pixels(
        self, i: int, size: int | None = None, pixel_range: Sequence[float] | None = None
    ) -> torch.Tensor:
        """Return image ``i`` as uint8 ``[channels, size, size]``.

        Args:
            i: its number in the source.
            size: its side, if it is not the data set's.
            pixel_range: of 16-bit and float pictures, as the index found it.

        Raises:
            BadImageError: its bytes are no image.
            DeepImageError: it has 16 bits or floats, and there is no range.
            DataError: the machine cannot read it.
        """
        from ddoq.data.images import fault, to_uint8

        source = self.opened
        try:
            return to_uint8(
                source.read(i), size or self.image_size, self.channels, self.resize, pixel_range
            )
        except DeepImageError:
            raise
        except Exception as error:
            if why := fault(error):
                raise BadImageError(
                    f"{source.describe(i)}: {why}", "restore it: it was an image once"
                ) from error
            raise DataError(
                f"dataset: {source.describe(i)} cannot be read ({error})", READABLE
            ) from error

    def check(self, facts: Mapping[str, Any]) -> None:
        """Raise DataError where an index, by its facts, lacks images that were to be in it,
        or all those of a class.
        """
        if (num := facts["num_skipped"]) and self.on_bad_image == "error":
            named = [*facts["skipped"][:_MOST_NAMED], *(["…"] if num > _MOST_NAMED else [])]
            raise DataError(
                f"dataset: {num} unreadable image{'s' if num > 1 else ''}: {'; '.join(named)}",
                "repair or remove what is named, or leave it out: dataset.on_bad_image=skip",
            )
        names, counts = facts["class_names"], facts["counts"]
        if len(names) == 1:
            raise OneClassError(
                f"dataset: there is one class, {names[0]!r}",
                "give images of two classes or more: for folders, "
                "dataset.root is the one that holds all class folders",
            )
        if without := _without(counts["train"]):
            raise DataError(
                f"dataset: no usable training images in {len(without)} of {len(names)} classes: "
                f"{_some(names, without)}{_hint(names, without)}",
                "add images to them, or remove them (from the other splits too)",
            )
        for split in ("validation", "test"):
            if (without := _without(counts[split])) and split in self._given(facts):
                raise DataError(
                    f"dataset: no usable {split} images in {len(without)} of {len(names)} classes: "
                    f"{_some(names, without)}",
                    f"add {split} images of them, "
                    f"or move the {split} images out of the data set: then they are drawn",
                )

    def _given(self, facts: Mapping[str, Any]) -> Sequence[str]:
        """Return the splits that came with the data; an index of earlier versions does not say."""
        return facts["given"] if "given" in facts else given_splits(self.opened)

    def examine(self) -> Source:
        """Return the opened data set.

        Raises DataError, before any image is read, where ``check`` would after it.
        """
        source = self.opened
        self.check(
            {"num_skipped": 0, "class_names": source.class_names}
            | split_facts(source, source.split)
        )
        return source

    def __getstate__(self) -> dict:
        """Leave out the opened data set: a process that is not forked opens its own."""
        return {name: value for name, value in self.__dict__.items() if name != "opened"}

    def fetch(self, folder: Path) -> None:  # noqa: B027 (not abstract: this is the default)
        """Download what is missing below a folder of ``paths.data``;
        nothing, for data of the user's own.

        Raises:
            DataError: the download failed, or the files are not free to download:
                the remedy says where they are.
        """


def given_splits(source: Source) -> list[str]:
    """Return the splits that came with the data, the others are drawn."""
    return [split for split in SPLITS if split != "train" and np.any(source.split == split)]


def split_facts(source: Source, split: np.ndarray) -> dict[str, Any]:
    """Return the number of images of every class in every split,
    and which splits came with the data.

    Args:
        source: the data set of n images.
        split: str ``[n]``; images of none are counted for training where ``source`` has no splits.
    """
    split = np.where(source.split == "", "train", source.split) if split is source.split else split
    num = len(source.class_names)
    counts = {
        name: np.bincount(source.labels[split == name], minlength=num).tolist() for name in SPLITS
    }
    return {"counts": counts, "given": given_splits(source)}


def _without(counts: Sequence[int]) -> list[int]:
    return [c for c, count in enumerate(counts) if not count]


def _some(names: Sequence[str], classes: Sequence[int]) -> str:
    return ", ".join(repr(names[c]) for c in classes[:_MOST_NAMED])


def _hint(names: Sequence[str], classes: Sequence[int]) -> str:
    """Return in words which class differs from another one in blanks or in case alone."""
    others = {name.strip().lower(): name for c, name in enumerate(names) if c not in set(classes)}
    alike = ((names[c], others.get(names[c].strip().lower())) for c in classes)
    return next((f" (train has {other!r}, not {name!r})" for name, other in alike if other), "")


def hash_files(files: Iterable[Path], base: Path, digests: Digests | None = None) -> str:
    """Return ``hash_names`` of files below ``base``."""
    return hash_names((file.relative_to(base).as_posix() for file in files), base, digests)


def hash_names(names: Iterable[str], base: Path, digests: Digests | None = None) -> str:
    """Return a hash over the relative names, sizes and contents of files, however much that is.

    Args:
        names: of the files, relative to ``base``, with ``/`` between the parts.
        base: their folder.
        digests: remember the contents of files that have not changed; by default all are read.
    """
    names = sorted(names, key=lambda name: name.replace("/", "\0"))  # the order of Path objects
    contents = zip(names, (digests or Digests()).of(base, names), strict=True)
    text = "".join(f"{name}\0{size}\0{sha256}\n" for name, (size, sha256) in contents)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
