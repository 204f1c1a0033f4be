"""Image files in class folders, and any folder of them as a data set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ddoq.data.base import ImageDataset, Source, hash_names
from ddoq.errors import DataError

EXTENSIONS = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"])
_SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class Listing:
    """The image files of a data set, in one order.

    Attributes:
        root: the folder that ``names`` are relative to.
        names: of the files, ``n`` of them, with ``/`` between the parts. Not Path objects: there may be a million.
        labels: int64 ``[n]``.
        split: str ``[n]``, see ``Source``.
    """

    root: Path
    names: list[str]
    labels: np.ndarray
    split: np.ndarray

    def fingerprint(self) -> str:
        """Return a hash of the files, see ``hash_names``."""
        return hash_names(self.names, self.root)

    def source(self, class_names: list[str], provenance: str) -> Source:
        """Return the files as an opened data set."""
        return Source(
            class_names=class_names,
            labels=self.labels,
            split=self.split,
            read=lambda i: Image.open(self.root / self.names[i]),
            describe=lambda i: str(self.root / self.names[i]),
            provenance=provenance,
        )


def list_classes(root: Path, folders: Iterable[tuple[str, int, str]]) -> Listing:
    """List the images of class folders.

    Args:
        root: the folder of the data set.
        folders: split, label, and name relative to ``root`` of every class folder; sub-folders belong to the class.
    """
    names, labels, split = [], [], []
    for part, label, folder in folders:
        found = [f"{folder}/{name}" for name in image_files(root / folder)]
        names += found
        labels += [label] * len(found)
        split += [part] * len(found)
    return Listing(root, names, np.array(labels, np.int64), np.array(split, str))


def image_files(folder: Path | str) -> Iterator[str]:
    """Return the images below a folder, relative to it, in the order of their paths; without a stat of every file."""
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.is_dir(follow_symlinks=False):
            yield from (f"{entry.name}/{name}" for name in image_files(entry.path))
        elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS and entry.is_file():
            yield entry.name


@dataclass
class ImageFolder(ImageDataset):
    """``root/<class>/*`` or ``root/{train,val,test}/<class>/*``; sub-folders of a class belong to the class.

    Labels follow the sorted class names. With ``train`` and ``val`` only, ``val`` is the test set and validation
    images are drawn from train.
    """

    def fingerprint(self) -> str:
        """See ``ImageDataset.fingerprint``."""
        return self._listing()[0].fingerprint()

    def open(self) -> Source:
        """See ``ImageDataset.open``."""
        listing, class_names = self._listing()
        return listing.source(class_names, f"image folder {listing.root.name}")

    def _listing(self) -> tuple[Listing, list[str]]:
        """Return all images and the class names."""
        classes = self._classes()
        root = Path(self.root)
        names = sorted({folder.name for _, folder in classes})
        number = {name: label for label, name in enumerate(names)}
        folders = [(split, number[folder.name], folder.relative_to(root).as_posix()) for split, folder in classes]
        listing = list_classes(root, folders)
        if not listing.names:
            raise DataError(f"dataset.root: no images below {self.root}", f"supported: {' '.join(sorted(EXTENSIONS))}")
        return listing, names

    def _classes(self) -> list[tuple[str, Path]]:
        """Return split and folder of every class folder, sorted."""
        if not self.root or not Path(self.root).is_dir():
            raise DataError(
                f"dataset.root: {self.root!r} is not a folder", "set dataset.root=/path/to/a/folder/of/class/folders"
            )
        top = subfolders(Path(self.root))
        if any(_SPLIT_FOLDERS.get(folder.name) == "train" for folder in top):
            parts = [(_SPLIT_FOLDERS[folder.name], folder) for folder in top if folder.name in _SPLIT_FOLDERS]
            if not any(split == "test" for split, _ in parts):
                parts = [("test" if split == "validation" else split, folder) for split, folder in parts]
            classes = [(split, folder) for split, part in parts for folder in subfolders(part)]
        else:
            classes = [("", folder) for folder in top]
        if not classes:
            raise DataError(
                f"dataset.root: {self.root} holds no class folders", "put the images into one sub-folder per class"
            )
        return classes


def subfolders(path: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones."""
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
