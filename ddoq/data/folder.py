"""Image files in class folders, and any folder of them as a data set."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ddoq.data.base import ImageDataset, OneClassError, Source, hash_names
from ddoq.data.layout import Layout, above, recognise
from ddoq.data.names import ordered
from ddoq.data.tree import (
    EXTENSIONS,
    IMAGE,
    LINK,
    PIPE,
    files_below,
    is_named_image,
    is_nobodys,
    printable,
)
from ddoq.errors import DataError
from ddoq.utils.digests import Digests


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The image files of a data set, in one order.

    Attributes:
        root: the folder that ``names`` are relative to.
        names: of the files, ``n`` of them, with ``/`` between the parts.
            Not Path objects: there may be a million.
        labels: int64 ``[n]``.
        split: str ``[n]``, see ``Source``.
        unusable, ignored: see ``Source``.
    """

    root: Path
    names: list[str]
    labels: np.ndarray
    split: np.ndarray
    unusable: Sequence[str] = ()
    ignored: Counter[str] = field(default_factory=Counter)

    def fingerprint(self, digests: Digests, more: Sequence[str] = ()) -> str:
        """Return a hash of the files, see ``hash_names``, and of what is unusable.

        Args:
            digests: remember the contents.
            more: names of other files that decide what the images are.
        """
        files = hash_names([*self.names, *more], self.root, digests)
        return (
            hashlib.sha256("\n".join([files, *self.unusable]).encode()).hexdigest()
            if self.unusable
            else files
        )

    def source(self, class_names: list[str], provenance: str) -> Source:
        """Return the files as an opened data set."""
        return Source(
            class_names=class_names,
            labels=self.labels,
            split=self.split,
            read=lambda i: Image.open(self.root / self.names[i]),
            describe=lambda i: printable(str(self.root / self.names[i])),
            provenance=provenance,
            unusable=[printable(f"{self.root}{os.sep}{line}") for line in self.unusable],
            ignored=self.ignored,
        )


def list_classes(root: Path, folders: Iterable[tuple[str, int, str]]) -> Listing:
    """List the images of class folders.

    Args:
        root: the folder of the data set.
        folders: split, label, and name relative to ``root`` of every class folder;
            sub-folders belong to the class.
    """
    names, labels, split, unusable, ignored = [], [], [], [], Counter()
    for part, label, folder in folders:
        images = []
        for name, what in files_below(root / folder):
            if what == IMAGE:
                images.append(f"{folder}/{name}")
            elif what in (LINK, PIPE):
                unusable.append(printable(f"{folder}/{name}: {what}"))
            else:
                ignored[what] += 1
        names += images
        labels += [label] * len(images)
        split += [part] * len(images)
    return Listing(
        root=root,
        names=names,
        labels=np.array(labels, np.int64),
        split=np.array(split, str),
        unusable=unusable,
        ignored=ignored,
    )


def image_files(folder: Path | str) -> Iterator[str]:
    """Return the images below a folder, relative to it, in the order of their paths."""
    return (name for name, what in files_below(folder) if what == IMAGE)


@dataclass
class ImageFolder(ImageDataset):
    """``root/<class>/*`` or ``root/{train,val,test}/<class>/*``;
    sub-folders of a class belong to the class.

    Splits may have other names (``training``, ``test_set``, ``seg_train``, ``dev``), see
    ``ddoq.data.layout``. Labels follow the sorted class names, in which an accented letter is the
    same however it is encoded. With ``train`` and ``val`` only, ``val`` is the test set and
    validation images are drawn from train.

    Args:
        class_order: ``text`` sorts the classes as torchvision does,
            ``number`` by the numbers in their names.
    """

    class_order: Literal["text", "number"] = "text"

    def fingerprint(self) -> str:
        """See ``ImageDataset.fingerprint``."""
        layout, listing, _ = self._read()
        files = listing.fingerprint(self.digests)
        if not layout.is_new:
            return files
        reading = [f"{split}\0{name}\0{folder.name}" for split, name, folder in layout.classes]
        return hashlib.sha256(
            "\n".join([files, *reading]).encode(errors="surrogateescape")
        ).hexdigest()

    def open(self) -> Source:
        """See ``ImageDataset.open``."""
        layout, listing, class_names = self._read()
        source = listing.source(class_names, f"image folder {layout.root.name}")
        return replace(source, where=layout.where, notes=layout.notes)

    def check(self, facts: Mapping[str, Any]) -> None:
        """See ``ImageDataset.check``; the remedy for a single class names the folder to give."""
        try:
            super().check(facts)
        except OneClassError as error:
            if remedy := above(Path(self.root)):
                raise OneClassError(error.cause, remedy) from error
            raise

    def _read(self) -> tuple[Layout, Listing, list[str]]:
        """Return the layout, all images and the class names."""
        if not self.root or not os.path.isdir(self.root):
            raise DataError(
                f"dataset.root: {self.root!r} is not a folder",
                "set dataset.root=/path/to/a/folder/of/class/folders",
            )
        layout = recognise(Path(self.root))
        names = ordered({name for _, name, _ in layout.classes}, self.class_order)
        number = {name: label for label, name in enumerate(names)}
        folders = [
            (split, number[name], folder.relative_to(layout.root).as_posix())
            for split, name, folder in layout.classes
        ]
        listing = list_classes(layout.root, folders)
        if not listing.names:
            raise DataError(
                f"dataset.root: no images below {self.root}",
                f"supported: {' '.join(sorted(EXTENSIONS))}",
            )
        return layout, replace(listing, ignored=listing.ignored + _outside(layout)), names


def _outside(layout: Layout) -> Counter[str]:
    """Count what lies beside the class folders, and in none of them."""
    folders = {folder for _, _, folder in layout.classes}
    parents = {folder.parent for folder in folders} | {layout.root}
    ancestors = {place for folder in folders for place in folder.relative_to(layout.root).parents}
    used, outside = folders | {layout.root / place for place in ancestors}, Counter()
    for entry in (entry for place in parents for entry in place.iterdir()):
        if entry in used or is_nobodys(entry.name):
            continue
        if is_named_image(entry.name):
            outside["image in no class folder"] += 1
        elif os.path.isdir(entry):
            outside[f"folder {printable(entry.name)}"] += 1
    return outside
