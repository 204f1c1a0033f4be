"""Image files in class folders, and any folder of them as a data set."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unicodedata import normalize

import numpy as np
from PIL import Image

from ddoq.data.base import ImageDataset, Source, hash_names
from ddoq.errors import DataError
from ddoq.utils.digests import Digests
from ddoq.utils.io import READABLE, reading

#: Endings of images. Browsers and phones save JPEG as .jfif and .jpe, too.
EXTENSIONS = frozenset(
    [".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"]
)
_SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
#: What systems put beside the user's files; names with a leading dot are passed over as well.
_NOBODYS = frozenset(["__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"])
_IMAGE, _LINK, _PIPE = "image", "a link to nothing", "neither a file nor a folder"


@dataclass(frozen=True)
class Listing:
    """The image files of a data set, in one order.

    Attributes:
        root: the folder that ``names`` are relative to.
        names: of the files, ``n`` of them, with ``/`` between the parts. Not Path objects: there may be a million.
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
        return hashlib.sha256("\n".join([files, *self.unusable]).encode()).hexdigest() if self.unusable else files

    def source(self, class_names: list[str], provenance: str) -> Source:
        """Return the files as an opened data set."""
        return Source(
            class_names=class_names,
            labels=self.labels,
            split=self.split,
            read=lambda i: Image.open(self.root / self.names[i]),
            describe=lambda i: _printable(str(self.root / self.names[i])),
            provenance=provenance,
            unusable=[_printable(f"{self.root}{os.sep}{line}") for line in self.unusable],
            ignored=self.ignored,
        )


def list_classes(root: Path, folders: Iterable[tuple[str, int, str]]) -> Listing:
    """List the images of class folders.

    Args:
        root: the folder of the data set.
        folders: split, label, and name relative to ``root`` of every class folder; sub-folders belong to the class.
    """
    names, labels, split, unusable, ignored = [], [], [], [], Counter()
    for part, label, folder in folders:
        found = []
        for name, what in files_below(root / folder):
            if what == _IMAGE:
                found.append(f"{folder}/{name}")
            elif what in (_LINK, _PIPE):
                unusable.append(_printable(f"{folder}/{name}: {what}"))
            else:
                ignored[what] += 1
        names += found
        labels += [label] * len(found)
        split += [part] * len(found)
    return Listing(root, names, np.array(labels, np.int64), np.array(split, str), unusable, ignored)


def image_files(folder: Path | str) -> Iterator[str]:
    """Return the images below a folder, relative to it, in the order of their paths."""
    return (name for name, what in files_below(folder) if what == _IMAGE)


def files_below(folder: Path | str, above: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """Yield what lies below a folder, in the order of the paths, without a stat of every file.

    Links are followed, those to folders too, but not in a circle.

    Args:
        folder: where to look.
        above: the folders that this one lies in, by their real paths, as far as links were followed.

    Yields:
        Name relative to ``folder``, and what it is: ``_IMAGE``; ``_LINK`` or ``_PIPE`` where something is only named
        like one; or the kind of anything else: its extension.
    """
    with reading(folder, READABLE), os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if _is_nobodys(entry.name):
            if _is_named_image(entry.name):
                yield entry.name, "hidden image"
            continue
        within = above
        if entry.is_symlink() and os.path.isdir(entry.path):
            here, target = os.path.realpath(folder), os.path.realpath(entry.path)
            within = above | {here}
            if any(os.path.commonpath([target, place]) == target for place in within):
                yield entry.name, "link in a circle"
                continue
        elif not entry.is_dir(follow_symlinks=False):
            if not _is_named_image(entry.name):
                yield entry.name, os.path.splitext(entry.name)[1].lower() or "without extension"
            else:
                yield entry.name, _IMAGE if entry.is_file(follow_symlinks=False) else _kind(entry.path)
            continue
        yield from ((f"{entry.name}/{name}", what) for name, what in files_below(entry.path, within))


def _is_nobodys(name: str) -> bool:
    return name.startswith(".") or name in _NOBODYS


def _is_named_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _kind(path: str) -> str:
    """Return what a link, pipe, socket or device is; it is not opened, which could block."""
    return _IMAGE if os.path.isfile(path) else _PIPE if os.path.exists(path) else _LINK


def _printable(name: str) -> str:
    """Return a name as valid text, in which bytes that are no UTF-8 are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@dataclass
class ImageFolder(ImageDataset):
    """``root/<class>/*`` or ``root/{train,val,test}/<class>/*``; sub-folders of a class belong to the class.

    Labels follow the sorted class names, in which an accented letter is the same however it is encoded. With ``train``
    and ``val`` only, ``val`` is the test set and validation images are drawn from train.
    """

    def fingerprint(self) -> str:
        """See ``ImageDataset.fingerprint``."""
        return self._listing()[0].fingerprint(self.digests)

    def open(self) -> Source:
        """See ``ImageDataset.open``."""
        listing, class_names = self._listing()
        return listing.source(class_names, f"image folder {listing.root.name}")

    def _listing(self) -> tuple[Listing, list[str]]:
        """Return all images and the class names."""
        classes = self._classes()
        root = Path(self.root)
        named = [(split, _printable(normalize("NFC", folder.name)), folder) for split, folder in classes]
        names = sorted({name for _, name, _ in named})
        number = {name: label for label, name in enumerate(names)}
        listing = list_classes(
            root, [(split, number[name], folder.relative_to(root).as_posix()) for split, name, folder in named]
        )
        if not listing.names:
            raise DataError(f"dataset.root: no images below {self.root}", f"supported: {' '.join(sorted(EXTENSIONS))}")
        return replace(listing, ignored=listing.ignored + _outside(root, [folder for _, _, folder in named])), names

    def _classes(self) -> list[tuple[str, Path]]:
        """Return split and folder of every class folder, sorted."""
        if not self.root or not os.path.isdir(self.root):
            raise DataError(
                f"dataset.root: {self.root!r} is not a folder", "set dataset.root=/path/to/a/folder/of/class/folders"
            )
        top = subfolders(Path(self.root))
        parts = [(_SPLIT_FOLDERS[name], folder) for folder in top if (name := folder.name.lower()) in _SPLIT_FOLDERS]
        splits = {split for split, _ in parts}
        if "train" in splits:
            if "test" not in splits:
                parts = [("test" if split == "validation" else split, folder) for split, folder in parts]
            classes = [(split, folder) for split, part in parts for folder in subfolders(part)]
        elif top and len(parts) == len(top):
            raise DataError(
                f"dataset.root: {self.root} holds {', '.join(folder.name for folder in top)} and no train",
                "name the folder of the training images train",
            )
        else:
            classes = [("", folder) for folder in top]
        if not classes:
            raise DataError(
                f"dataset.root: {self.root} holds no class folders", "put the images into one sub-folder per class"
            )
        return classes


def _outside(root: Path, classes: Sequence[Path]) -> Counter[str]:
    """Count what lies beside the class folders, and in none of them."""
    parents = {folder.parent for folder in classes}
    known, found = parents | set(classes), Counter()
    for entry in (entry for place in parents | {root} for entry in place.iterdir()):
        if entry in known or _is_nobodys(entry.name):
            continue
        if _is_named_image(entry.name):
            found["image in no class folder"] += 1
        elif entry.is_dir():
            found[f"folder {_printable(entry.name)}"] += 1
    return found


def subfolders(path: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones.

    Raises:
        DataError: one is a link to nothing: its class would be lost.
    """
    with reading(path, READABLE):
        found = sorted(entry for entry in path.iterdir() if not _is_nobodys(entry.name))
        folders, links = [entry for entry in found if entry.is_dir()], [entry for entry in found if entry.is_symlink()]
        broken = [_printable(str(entry)) for entry in links if not entry.exists()]
    if broken:
        raise DataError(f"dataset: {broken[0]} is a link to nothing", "repair or remove it")
    return folders
