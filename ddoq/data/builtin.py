"""Data sets by name: scikit-learn's digits, Fashion-MNIST and CIFAR-10."""

from __future__ import annotations

import gzip
import hashlib
import socket
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ddoq.data.base import ImageDataset, Source, hash_files
from ddoq.data.parquet import open_parquet
from ddoq.errors import DataError


def _array_source(
    images: np.ndarray, labels: np.ndarray, split: np.ndarray, names: list[str], provenance: str
) -> Source:
    return Source(
        class_names=names,
        labels=labels.astype(np.int64),
        split=split,
        read=lambda i: Image.fromarray(images[i]),
        describe=lambda i: f"{provenance} #{i}",
        provenance=provenance,
    )


@dataclass
class Digits(ImageDataset):
    """scikit-learn's 1,797 handwritten digits, 8×8 grey (UCI, Alpaydin & Kaynak 1998). Ships with scikit-learn."""

    def fingerprint(self) -> str:
        """See ``ImageDataset.fingerprint``."""
        images, labels = self._arrays()
        return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()

    def open(self) -> Source:
        """See ``ImageDataset.open``."""
        images, labels = self._arrays()
        return _array_source(
            images, labels, np.full(len(labels), ""), [str(c) for c in range(10)], "scikit-learn digits"
        )

    @staticmethod
    def _arrays() -> tuple[np.ndarray, np.ndarray]:
        from sklearn.datasets import load_digits

        bunch = load_digits()  # intensities 0..16
        return np.round(bunch.images * (255 / 16)).astype(np.uint8), bunch.target


@dataclass
class _Downloadable(ImageDataset):
    """A data set that torchvision can download into the first folder of ``paths.data``."""

    download: bool = True

    def _find(self, folders: tuple[str, ...], files: tuple[str, ...]) -> Path | None:
        roots = (Path(self.root),) if self.root else tuple(base / folder for base in self.search for folder in folders)
        return next((root for root in roots if all((root / file).is_file() for file in files)), None)

    def _fetch(self, factory, place: Path, files: tuple[str, ...]) -> None:
        """Let torchvision download; without a network say which files belong where."""
        remedy = f"put {', '.join(files)} into {place.resolve()}, or set paths.data to the folder above it"
        looked = ", ".join(str(base) for base in self.search)
        if not self.download or self.root:
            raise DataError(f"dataset: {self.name} was not found in {self.root or looked}", remedy)
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(10)
        try:
            factory()
        except Exception as error:  # urllib, ssl, zlib and torchvision each raise their own
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(
                f"dataset: {self.name} was not found in {looked}, and the download failed ({reason})", remedy
            ) from error
        finally:
            socket.setdefaulttimeout(timeout)


@dataclass
class FashionMNIST(_Downloadable):
    """Fashion-MNIST (Xiao et al. 2017), 60,000 + 10,000 grey 28×28, read from the original IDX ``.gz`` files."""

    _FOLDERS = ("fashion_mnist", "FashionMNIST/raw")
    _FILES = (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    )
    _NAMES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]

    def fingerprint(self) -> str:
        """See ``ImageDataset.fingerprint``."""
        folder = self._folder()
        return hash_files([folder / file for file in self._FILES], folder)

    def open(self) -> Source:
        """See ``ImageDataset.open``."""
        folder = self._folder()
        images, labels = [], []
        for part in ("train", "t10k"):
            images.append(_read_idx(folder / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28))
            labels.append(_read_idx(folder / f"{part}-labels-idx1-ubyte.gz", 8))
        split = np.repeat(["train", "test"], [len(part) for part in labels])
        return _array_source(np.concatenate(images), np.concatenate(labels), split, self._NAMES, "Fashion-MNIST")

    def _folder(self) -> Path:
        found = self._find(self._FOLDERS, self._FILES)
        if found is None:

            def factory() -> None:
                from torchvision.datasets import FashionMNIST as TorchvisionFashionMNIST

                TorchvisionFashionMNIST(self.search[0], download=True)

            self._fetch(factory, Path(self.root) if self.root else self.search[0] / self._FOLDERS[0], self._FILES)
            found = self._find(self._FOLDERS, self._FILES)
        return found


def _read_idx(path: Path, header: int) -> np.ndarray:
    try:
        return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"dataset: {path} cannot be read ({error})", "replace it by the original file") from error


@dataclass
class CIFAR10(_Downloadable):
    """CIFAR-10 (Krizhevsky 2009), 50,000 + 10,000 RGB 32×32.

    Read from torchvision's ``cifar-10-batches-py`` (exact pixels), or from a folder with ``train.parquet`` and
    ``test.parquet`` (whatever pixels those hold; the report names the folder).
    """

    _FOLDERS = ("cifar10", "cifar10_jpeg")
    _FILES = ("train.parquet", "test.parquet")
    _BATCHES = "cifar-10-batches-py"

    def fingerprint(self) -> str:
        """See ``ImageDataset.fingerprint``."""
        folder = self._folder()
        return hash_files([file for file in folder.iterdir() if file.is_file()], folder)

    def open(self) -> Source:
        """See ``ImageDataset.open``."""
        folder = self._folder()
        if folder.name != self._BATCHES:
            return open_parquet(folder, "image", "label")
        from torchvision.datasets import CIFAR10 as TorchvisionCIFAR10

        parts = [TorchvisionCIFAR10(folder.parent, train=train) for train in (True, False)]
        split = np.repeat(["train", "test"], [len(part.targets) for part in parts])
        return _array_source(
            np.concatenate([part.data for part in parts]),
            np.concatenate([part.targets for part in parts]),
            split,
            parts[0].classes,
            "CIFAR-10",
        )

    def _folder(self) -> Path:
        def find() -> Path | None:
            return self._find((self._BATCHES,), ("batches.meta", "test_batch")) or self._find(
                self._FOLDERS, self._FILES
            )

        found = find()
        if found is None:

            def factory() -> None:
                from torchvision.datasets import CIFAR10 as TorchvisionCIFAR10

                TorchvisionCIFAR10(self.search[0], download=True)

            self._fetch(factory, Path(self.root) if self.root else self.search[0] / self._FOLDERS[0], self._FILES)
            found = find()
        return found
