"""ImageNet-1K and its subsets, from the original folders or fastai's archives."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ddoq.data.base import Source
from ddoq.data.catalogue import CATALOGUE, Subset
from ddoq.data.download import PublishedDataset, unexpected_counts
from ddoq.data.folder import Listing, image_files, list_classes
from ddoq.data.parquet import hash_shards
from ddoq.data.shards import find_shards
from ddoq.errors import ConfigError, DataError, did_you_mean

_MOST_NAMED = 20
#: The test split is not public; all results are on the validation split.
_SPLITS = {"train": "train", "val": "test"}
_ORIGINAL = ("imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC")


@dataclass
class ImageNet(PublishedDataset):
    """Classes of ImageNet-1K (Russakovsky et al. 2015), labelled in their published order;
    ``val`` is the test split.

    Args:
        classes: which of them, see ``ddoq.data.catalogue``.
        source: ``original`` takes the classes out of the folders ``train/<wnid>`` and
            ``val/<wnid>`` of ILSVRC2012; ``fastai`` reads the version 2 of its archives, another
            split with fewer training images, from class folders or from Hugging Face Parquet.
    """

    classes: Literal["imagenet1k", "imagenette", "imagewoof", "imagenet100", "imageidc"] = (
        "imagenet1k"
    )
    source: Literal["original", "fastai"] = "original"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source not in self._subset.counts:
            raise ConfigError(
                f"dataset.source: {self._subset.title} has no source '{self.source}'",
                did_you_mean(self.source, self._subset.counts),
            )

    def fingerprint(self) -> str:
        """See ``ImageDataset.fingerprint``."""
        folder = self._folder()
        if _has_parquet(folder):
            return hash_shards(find_shards(folder), self.digests)
        return _listing(folder, self._subset.wnids).fingerprint(self.digests)

    def open(self) -> Source:
        """See ``ImageDataset.open``."""
        folder, wnids = self._folder(), self._subset.wnids
        where = "original ILSVRC2012 folders" if self.source == "original" else "fastai v2 split"
        provenance = f"{self.classes}, {where} ({folder.name})"
        if _has_parquet(folder):
            from ddoq.data.tables import open_parquet

            source = _reordered(open_parquet(folder, "image", "label"), wnids)
            source = replace(source, provenance=provenance)
        else:
            source = _listing(folder, wnids).source(wnids, provenance)
        title = f"{self._subset.title} ({self.source})"
        return replace(
            source,
            unexpected_counts=unexpected_counts(source, title, self._subset.counts[self.source]),
        )

    @property
    def _subset(self) -> Subset:
        return CATALOGUE[self.classes]

    def _names(self) -> tuple[str, ...]:
        if self.source == "original":
            return _ORIGINAL
        return tuple(self.classes + suffix for suffix in ("2", "2-320", "2-160", "128"))

    def _complete(self, folder: Path) -> bool:
        return (folder / "train").is_dir() or (self.source == "fastai" and _has_parquet(folder))

    def _download(self, folder: Path) -> None:
        if self.source == "original":
            raise DataError(
                f"dataset: {self.name} cannot be downloaded without an account", self._remedy()
            )
        with self._downloading():
            self._subset.archive.extract_below(folder)

    def _remedy(self) -> str:
        if self.source == "fastai":
            return self._subset.archive.remedy(self.search)
        place = self.root or (self.search[0] / _ORIGINAL[0]).resolve()
        return (
            "get ILSVRC2012 from https://image-net.org "
            "(registration, non-commercial research terms, about 150 GB) "
            f"and put train/<wnid>/*.JPEG and val/<wnid>/*.JPEG into {place}"
        )


def _has_parquet(folder: Path) -> bool:
    return any(folder.glob("train*.parquet"))


def _listing(root: Path, wnids: Sequence[str]) -> Listing:
    for part in _SPLITS:
        _check_classes(root / part, wnids)
    return list_classes(
        root,
        [
            (split, label, f"{part}/{wnid}")
            for part, split in _SPLITS.items()
            for label, wnid in enumerate(wnids)
        ],
    )


def _check_classes(folder: Path, wnids: Sequence[str]) -> None:
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    missing = [wnid for wnid in wnids if wnid not in present]
    if len(missing) == len(wnids) and present and next(image_files(folder), None):
        raise DataError(
            f"dataset: {folder} holds images, but no class folders",
            "sort them: "
            f"run valprep.sh of https://github.com/soumith/imagenetloader.torch in {folder}",
        )
    packed = sorted(name for name in present if name.endswith(".tar"))
    if missing and packed:
        raise DataError(
            f"dataset: {folder} holds {packed[0]} …, "
            f"and lacks {len(missing)} of {len(wnids)} class folders",
            "extract each into a folder of its name: "
            f"cd {shlex.quote(str(folder))} && for f in *.tar; do "
            'd="${f%.tar}"; mkdir -p "$d"; tar -xf "$f" -C "$d"; done',
        )
    if missing:
        named = " ".join(missing[:_MOST_NAMED]) + (" …" if len(missing) > _MOST_NAMED else "")
        raise DataError(
            f"dataset: {folder} lacks {len(missing)} of {len(wnids)} class folders: {named}",
            "add them, or set dataset.root to a complete copy",
        )


def _reordered(source: Source, wnids: Sequence[str]) -> Source:
    """Return a source whose classes are WordNet ids with its labels in the order of ``wnids``."""
    if sorted(source.class_names) != sorted(wnids):
        raise DataError(
            "dataset: "
            f"the classes of {source.provenance} are {' '.join(source.class_names[:_MOST_NAMED])}",
            f"the label column has to name exactly these: {' '.join(wnids[:_MOST_NAMED])}",
        )
    new = np.array([wnids.index(name) for name in source.class_names])
    return replace(source, class_names=list(wnids), labels=new[source.labels])
