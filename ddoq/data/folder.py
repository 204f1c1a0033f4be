"""Any folder of class folders."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ddoq.data.base import ImageDataset, Source, hash_files
from ddoq.errors import DataError

EXTENSIONS = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"])
_SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
_WNID = re.compile(r"n\d{8}")


@dataclass
class ImageFolder(ImageDataset):
    """``root/<class>/*`` or ``root/{train,val,test}/<class>/*``; sub-folders of a class belong to the class.

    Labels follow the sorted class names. With ``train`` and ``val`` only, ``val`` is the test set and validation
    images are drawn from train.
    """

    def fingerprint(self) -> str:
        """See ``ImageDataset.fingerprint``."""
        return hash_files([file for _, _, file in self._files()], Path(self.root))

    def open(self) -> Source:
        """See ``ImageDataset.open``."""
        files = self._files()
        names = sorted({name for _, name, _ in self._classes()})
        number = {name: label for label, name in enumerate(names)}
        return Source(
            class_names=names,
            labels=np.array([number[name] for _, name, _ in files], np.int64),
            split=np.array([split for split, _, _ in files]),
            read=lambda i: Image.open(files[i][2]),
            describe=lambda i: str(files[i][2]),
            provenance=f"image folder {Path(self.root).name}",
            wnids=names if all(_WNID.fullmatch(name) for name in names) else None,
        )

    def _classes(self) -> list[tuple[str, str, Path]]:
        """Return (split, class name, folder) of every class folder, sorted."""
        if not self.root or not Path(self.root).is_dir():
            raise DataError(
                f"dataset.root: {self.root!r} is not a folder", "set dataset.root=/path/to/a/folder/of/class/folders"
            )
        top = _folders(Path(self.root))
        if any(_SPLIT_FOLDERS.get(folder.name) == "train" for folder in top):
            parts = [(_SPLIT_FOLDERS[folder.name], folder) for folder in top if folder.name in _SPLIT_FOLDERS]
            if not any(split == "test" for split, _ in parts):
                parts = [("test" if split == "validation" else split, folder) for split, folder in parts]
            classes = [(split, folder.name, folder) for split, part in parts for folder in _folders(part)]
        else:
            classes = [("", folder.name, folder) for folder in top]
        if not classes:
            raise DataError(
                f"dataset.root: {self.root} holds no class folders", "put the images into one sub-folder per class"
            )
        return classes

    def _files(self) -> list[tuple[str, str, Path]]:
        """Return (split, class name, file) of every image, sorted."""
        files = [
            (split, name, file)
            for split, name, folder in self._classes()
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() in EXTENSIONS and file.is_file()
        ]
        if not files:
            raise DataError(f"dataset.root: no images below {self.root}", f"supported: {' '.join(sorted(EXTENSIONS))}")
        return files


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
