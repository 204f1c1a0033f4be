"""Published data sets: where they are looked for, and how their files get there."""

from __future__ import annotations

import re
import socket
import tarfile
import tempfile
import zipfile
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ddoq.data.base import ImageDataset, Source
from ddoq.errors import DataError
from ddoq.utils.io import TEMPORARY

_MOST_NAMED = 3
_SILENCE = 10  # seconds without a byte after which a server counts as absent


@dataclass
class PublishedDataset(ImageDataset):
    """A data set that lies in a folder of a known name below ``paths.data``, or at ``root``."""

    @abstractmethod
    def _names(self) -> tuple[str, ...]:
        """Return the names of folders that the files may be in, the preferred one first."""

    @abstractmethod
    def _complete(self, folder: Path) -> bool:
        """Return whether a folder holds the files."""

    @abstractmethod
    def _download(self, folder: Path) -> None:
        """Download below ``folder``, where nothing is yet."""

    @abstractmethod
    def _remedy(self) -> str:
        """Return which files from where belong into which folder."""

    def fetch(self, folder: Path) -> None:
        """See ``ImageDataset.fetch``."""
        there = replace(self, root=None, search=(Path(folder),))
        if there._find() is None:
            there._download(Path(folder))

    def _folder(self) -> Path:
        folder = self._find()
        if folder is None:
            raise DataError(
                f"dataset: {self.name} was not found in {self._looked()}", self._remedy()
            )
        return folder

    def _find(self) -> Path | None:
        places = (
            [Path(self.root)]
            if self.root
            else [base / name for name in self._names() for base in self.search]
        )
        return next((folder for folder in places if self._complete(folder)), None)

    def _looked(self) -> str:
        return self.root or f"{', '.join(map(str, self.search))} (as {' or '.join(self._names())})"

    @contextmanager
    def _downloading(self) -> Iterator[None]:
        """Turn whatever a download raises into two lines."""
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_SILENCE)
        try:
            yield
        except Exception as error:
            # urllib, ssl, zlib, tarfile and torchvision each raise their own.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(
                f"dataset: {self.name} was not found in {self._looked()}, "
                f"and the download failed ({reason})",
                self._remedy(),
            ) from error
        finally:
            socket.setdefaulttimeout(timeout)


def check_classes(source: Source, title: str, names: Sequence[str], as_table: str) -> None:
    """Raise DataError where a table under a published name has other classes,
    or the same ones in another order.

    Names that are the numbers of the labels (``3``, ``class 3``) are no other classes. Nor are
    other words for some of them (``car``), as long as most are the same, and none stands where
    another one is expected.

    Args:
        source: what was opened.
        title: of the published set.
        names: of its classes.
        as_table: the options that read the same files as a table of the user's own.
    """
    there = list(source.class_names)
    numbers = [re.findall("[0-9]+", name) for name in source.class_names]
    if len(there) == len(names) and numbers == [[str(label)] for label in range(len(names))]:
        return
    same = sum(name == other for name, other in zip(there, names, strict=False))
    moved = [
        name for name, other in zip(there, names, strict=False) if name != other and name in names
    ]
    if len(there) == len(names) and 2 * same >= len(names) and not moved:
        return
    actual, expected = (
        f"{len(them)} classes, {', '.join(map(repr, them[:_MOST_NAMED]))} …"
        for them in (there, names)
    )
    raise DataError(
        f"dataset: {source.provenance} has {actual}, and {title} {expected}",
        f"read it as what it is: {as_table}",
    )


def unexpected_counts(source: Source, title: str, stated: Sequence[int | None]) -> str | None:
    """Return in words which numbers of training and test images differ from the stated ones;
    ``None``: nobody says.
    """
    problems = [
        f"{number:,} {kind} images where {title} has {expected:,}"
        for kind, split, expected in zip(
            ("training", "test"), ("train", "test"), stated, strict=True
        )
        if expected not in (None, number := int(np.sum(source.split == split)))
    ]
    return "; ".join(problems) or None


@dataclass(frozen=True)
class Archive:
    """A published ``.tgz`` or ``.zip``.

    Attributes:
        url: where it is.
        folder: the one in it that is wanted.
        size: in words.
        md5: of the archive, where its authors state it.
    """

    url: str
    folder: str
    size: str
    md5: str | None = None

    def remedy(self, search: Sequence[Path]) -> str:
        """Return what to do with the archive, given the folders of ``paths.data``."""
        place = search[0].resolve() if search else "a folder"
        return (
            f"extract {self.url} ({self.size}) into {place}, "
            "or set dataset.root to the extracted folder"
        )

    def extract_below(self, target: Path) -> None:
        """Download the archive and put its folder below ``target``: the whole folder or nothing.

        Members that would land outside are refused,
        as the archive may come over an insecure connection.
        """
        from torchvision.datasets.utils import download_url

        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=target) as temporary:
            file = Path(temporary) / self.url.rsplit("/", 1)[1]
            download_url(self.url, temporary, file.name, self.md5)
            content = Path(temporary) / "content"
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    archive.extractall(content)  # drops absolute paths and ".." by itself
            else:
                with tarfile.open(file) as archive:
                    archive.extractall(content, filter="data")
            (content / self.folder).rename(target / self.folder)
