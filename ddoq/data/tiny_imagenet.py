"""Tiny-ImageNet, from the folder of its archive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ddoq.data.base import Source
from ddoq.data.download import Archive, PublishedDataset, unexpected_counts
from ddoq.data.folder import Listing, image_files, list_classes
from ddoq.data.label_space import is_wnid
from ddoq.data.tree import subfolders
from ddoq.errors import DataError, override

_ANNOTATIONS = "val/val_annotations.txt"
_ARCHIVE = Archive(
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "tiny-imagenet-200", "240 MB"
)


@dataclass
class TinyImageNet(PublishedDataset):
    """Tiny-ImageNet (Stanford CS231n), 200 classes, 100,000 + 10,000 RGB 64×64.

    Labels follow the sorted WordNet ids, as in the literature, which opens it with torchvision's
    ``ImageFolder``. The validation split is the test split, since the test labels are not public.
    """

    def fingerprint(self) -> str:
        """See ``ImageDataset.fingerprint``."""
        listing, _ = self._listing()
        # A sorted copy needs no such file.
        labels = [_ANNOTATIONS] if (listing.root / _ANNOTATIONS).is_file() else []
        return listing.fingerprint(self.digests, more=labels)

    def open(self) -> Source:
        """See ``ImageDataset.open``."""
        listing, wnids = self._listing()
        source = listing.source(wnids, f"Tiny-ImageNet ({listing.root.name})")
        fewer = f"{len(wnids)} classes where Tiny-ImageNet has 200" if len(wnids) != 200 else None
        problems = [fewer, unexpected_counts(source, "Tiny-ImageNet", (100_000, 10_000))]
        return replace(source, unexpected_counts="; ".join(filter(None, problems)) or None)

    def _listing(self) -> tuple[Listing, list[str]]:
        root = self._folder()
        wnids = [folder.name for folder in subfolders(root / "train")]
        if others := [name for name in wnids if not is_wnid(name)]:
            raise DataError(
                f"dataset: {root / 'train'} has the class folder {others[0]!r}, "
                "and Tiny-ImageNet's are WordNet ids",
                f"read it as what it is: dataset=image_folder {override('dataset.root', root)}",
            )
        train = list_classes(
            root, [("train", label, f"train/{wnid}") for label, wnid in enumerate(wnids)]
        )
        names, labels = _validation(root, {wnid: label for label, wnid in enumerate(wnids)})
        return (
            Listing(
                root=root,
                names=train.names + names,
                labels=np.concatenate([train.labels, np.array(labels, np.int64)]),
                split=np.repeat(["train", "test"], [len(train.names), len(names)]),
                unusable=train.unusable,
                ignored=train.ignored,
            ),
            wnids,
        )

    def _names(self) -> tuple[str, ...]:
        return (_ARCHIVE.folder,)

    def _complete(self, folder: Path) -> bool:
        return (folder / "train").is_dir() and (
            (folder / _ANNOTATIONS).is_file() or _is_sorted(folder / "val")
        )

    def _download(self, folder: Path) -> None:
        with self._downloading():
            _ARCHIVE.extract_below(folder)

    def _remedy(self) -> str:
        return _ARCHIVE.remedy(self.search)


def _validation(root: Path, number: dict[str, int]) -> tuple[list[str], list[int]]:
    """Return names relative to ``root`` and labels of the validation images,
    whose classes are in a file.
    """
    if not (root / _ANNOTATIONS).is_file():
        return _sorted(root, number)
    lines = [
        line.split("\t") for line in (root / _ANNOTATIONS).read_text(encoding="utf-8").splitlines()
    ]
    wnid_of = {fields[0]: fields[1] for fields in lines if len(fields) > 1}
    files = list(image_files(root / "val" / "images"))
    unknown = [file for file in files if wnid_of.get(file) not in number] + sorted(
        wnid_of.keys() - set(files)
    )
    if unknown or not files:
        what = (
            f"{len(unknown)} of its {len(wnid_of.keys() | set(files))} images, e.g. {unknown[0]},"
            if unknown
            else "its images"
        )
        raise DataError(
            f"dataset: {root / 'val'} lacks {what} or their classes in val_annotations.txt",
            f"extract {_ARCHIVE.url} again",
        )
    return [f"val/images/{file}" for file in files], [number[wnid_of[file]] for file in files]


def _is_sorted(folder: Path) -> bool:
    """Return whether the validation images lie in class folders, as many scripts leave them."""
    return folder.is_dir() and any(is_wnid(inside.name) for inside in subfolders(folder))


def _sorted(root: Path, number: dict[str, int]) -> tuple[list[str], list[int]]:
    """Return names relative to ``root`` and labels of validation images
    that lie in class folders.
    """
    wnids = [folder.name for folder in subfolders(root / "val")]
    if others := [wnid for wnid in wnids if wnid not in number]:
        raise DataError(
            f"dataset: {root / 'val'} has the folder {others[0]!r}, "
            f"and {root / 'train'} has no such class",
            f"extract {_ARCHIVE.url} again",
        )
    listing = list_classes(root, [("test", number[wnid], f"val/{wnid}") for wnid in wnids])
    return listing.names, listing.labels.tolist()
