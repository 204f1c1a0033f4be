"""Data sets of small images by name: scikit-learn's digits, (Fashion-)MNIST,
CIFAR-10 and -100, SVHN.
"""

from __future__ import annotations

import gzip
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from ddoq.data import catalogue
from ddoq.data.base import ImageDataset, Source, hash_files, hash_names
from ddoq.data.download import PublishedDataset, check_classes, unexpected_counts
from ddoq.data.parquet import hash_shards
from ddoq.data.shards import find_shards, has_tables
from ddoq.errors import DataError
from ddoq.utils.io import reading


def _array_source(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    names: list[str],
    title: str,
    split=("train", "test"),
) -> Source:
    """Return images ``[n, H, W]`` or ``[n, H, W, 3]`` and labels ``[n]``,
    one of each per split, as a source.
    """
    if [len(part) for part in images] != [len(part) for part in labels]:
        raise DataError(
            f"dataset: {title} has {sum(map(len, images))} images "
            f"and {sum(map(len, labels))} labels",
            "replace its files by the original ones",
        )
    pixels = np.concatenate(images)
    return Source(
        class_names=names,
        labels=np.concatenate(labels).astype(np.int64),
        split=np.repeat(split, [len(part) for part in labels]),
        read=lambda i: Image.fromarray(pixels[i]),
        describe=lambda i: f"{title} #{i}",
        provenance=title,
    )


@dataclass
class Digits(ImageDataset):
    """scikit-learn's 1,797 handwritten digits, 8×8 grey (UCI, Alpaydin & Kaynak 1998).

    Ships with scikit-learn.
    """

    def fingerprint(self) -> str:
        """See ``ImageDataset.fingerprint``."""
        images, labels = self._arrays()
        return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()

    def open(self) -> Source:
        """See ``ImageDataset.open``."""
        images, labels = self._arrays()
        return _array_source(
            [images], [labels], [str(c) for c in range(10)], "scikit-learn digits", split=("",)
        )

    @staticmethod
    def _arrays() -> tuple[np.ndarray, np.ndarray]:
        # Its file, not its ``load_digits``: to import scikit-learn takes longer than the rest of a
        # run that has nothing to compute.
        (package,) = find_spec("sklearn").submodule_search_locations
        with gzip.open(Path(package) / "datasets" / "data" / "digits.csv.gz", "rt") as file:
            rows = np.loadtxt(file, delimiter=",")  # 64 intensities 0..16 and a label
        images = rows[:, :-1].reshape(-1, 8, 8)
        return np.round(images * (255 / 16)).astype(np.uint8), rows[:, -1].astype(np.int64)


@dataclass
class _Torchvision(PublishedDataset):
    """A data set that torchvision can download into the first folder of ``paths.data``.

    A subclass states ``_TORCHVISION``, its class there, ``_ORIGIN``, where its authors publish it,
    ``_FOLDERS``, the folders that it may be in, ``_FORMS``, the sets of files that make a folder
    complete, the published form first, and ``_COUNTS``, the numbers of training and test images.

    Args:
        download: whether it may be downloaded where it is not there.
    """

    download: bool = True

    def _names(self) -> tuple[str, ...]:
        return self._FOLDERS

    def _complete(self, folder: Path) -> bool:
        return any(all((folder / file).is_file() for file in files) for files in self._FORMS)

    def _folder(self) -> Path:
        if self.download and not self.root and self._find() is None:
            self._download(self.search[0])
        return super()._folder()

    def _download(self, folder: Path) -> None:
        import torchvision.datasets

        with self._downloading():
            self._download_as(getattr(torchvision.datasets, self._TORCHVISION), folder)

    def _download_as(self, published: Callable, folder: Path) -> None:
        published(folder, download=True)

    def _counted(self, source: Source) -> Source:
        return replace(
            source, unexpected_counts=unexpected_counts(source, self._TITLE, self._COUNTS)
        )

    def _remedy(self) -> str:
        place = Path(self.root) if self.root else self.search[0] / self._FOLDERS[0]
        return (
            f"put {', '.join(self._FORMS[0])} into {place.resolve()} (from {self._ORIGIN}), "
            "or set paths.data to the folder above it"
        )


@dataclass
class _IDX(_Torchvision):
    """60,000 + 10,000 grey 28×28, read from the original IDX ``.gz`` files."""

    _FILES = (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    )
    _FORMS, _COUNTS = (_FILES,), (60_000, 10_000)

    def fingerprint(self) -> str:
        """See ``ImageDataset.fingerprint``."""
        return hash_names(self._FILES, self._folder(), self.digests)

    def open(self) -> Source:
        """See ``ImageDataset.open``."""
        folder = self._folder()
        images, labels = [], []
        for part in ("train", "t10k"):
            images.append(_read_idx(folder / f"{part}-images-idx3-ubyte.gz", (28, 28)))
            labels.append(_read_idx(folder / f"{part}-labels-idx1-ubyte.gz", ()))
        return self._counted(_array_source(images, labels, self._NAMES, self._TITLE))


def _read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the items of a file of bytes, ``[n, *shape]``;
    no more is unpacked than its header announces.
    """
    with reading(path, _ORIGINAL), gzip.open(path) as file:
        kind, *dimensions = np.frombuffer(file.read(8 + 4 * len(shape)), ">u4").tolist()
        if (
            kind != 0x801 + len(shape)
            or tuple(dimensions[1:]) != shape
            or dimensions[0] > _MOST_ITEMS
        ):
            raise ValueError(f"a header of {dimensions}, not of [n, {', '.join(map(str, shape))}]")
        size = math.prod(dimensions)
        items = file.read(size + 1)
        if len(items) != size:
            raise ValueError(f"not the {size} bytes that its header announces")
        return np.frombuffer(items, np.uint8).reshape(dimensions)


_MOST_ITEMS = 2**20  # MNIST has 60,000
_ORIGINAL = "replace it by the original file"


@dataclass
class MNIST(_IDX):
    """MNIST (LeCun et al. 1998), handwritten digits."""

    _TITLE, _TORCHVISION, _ORIGIN = "MNIST", "MNIST", "http://yann.lecun.com/exdb/mnist"
    _FOLDERS = ("mnist", "MNIST/raw")
    _NAMES = [str(digit) for digit in range(10)]


@dataclass
class FashionMNIST(_IDX):
    """Fashion-MNIST (Xiao et al. 2017), Zalando's articles."""

    _TITLE, _TORCHVISION = "Fashion-MNIST", "FashionMNIST"
    _ORIGIN = "https://github.com/zalandoresearch/fashion-mnist"
    _FOLDERS = ("fashion_mnist", "FashionMNIST/raw")
    _NAMES = [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ]


@dataclass
class _CIFAR(_Torchvision):
    """RGB 32×32 from torchvision's folder (exact pixels), or from Parquet,
    as the Hub has it or in two files.

    Parquet holds whatever pixels it holds; the report names the folder. ``_LABELS`` are the columns
    that its labels may be in, ``_NAMES`` the classes.
    """

    _ORIGIN = "https://www.cs.toronto.edu/~kriz/cifar.html"
    _PARQUET, _COUNTS = ("train.parquet", "test.parquet"), (50_000, 10_000)
    _IMAGES = ("image", "img")

    def fingerprint(self) -> str:
        """See ``ImageDataset.fingerprint``."""
        folder = self._folder()
        if not super()._complete(folder):
            return hash_shards(find_shards(folder), self.digests)
        return hash_files(
            [file for file in folder.iterdir() if file.is_file()], folder, self.digests
        )

    def open(self) -> Source:
        """See ``ImageDataset.open``."""
        folder = self._folder()
        if (folder / self._PARQUET[0]).is_file() or not super()._complete(folder):
            from ddoq.data.tables import as_options, open_parquet

            source = open_parquet(folder, self._IMAGES, self._LABELS)
            check_classes(
                source, self._TITLE, self._NAMES, as_options(folder, self._IMAGES, self._LABELS)
            )
            return self._counted(source)
        import torchvision.datasets

        published = getattr(torchvision.datasets, self._TORCHVISION)
        # torchvision checks the md5 of every file before it reads it.
        with reading(folder, _ORIGINAL):
            parts = [published(folder.parent, train=train) for train in (True, False)]
        return _array_source(
            [part.data for part in parts],
            [part.targets for part in parts],
            parts[0].classes,
            self._TITLE,
        )

    def _complete(self, folder: Path) -> bool:
        if super()._complete(folder) or not has_tables(folder):
            return super()._complete(folder)
        return {"train", "test"} <= find_shards(folder).files.keys()


@dataclass
class CIFAR10(_CIFAR):
    """CIFAR-10 (Krizhevsky 2009), 50,000 + 10,000 RGB 32×32."""

    _TITLE, _TORCHVISION = "CIFAR-10", "CIFAR10"
    _NAMES, _LABELS = catalogue.CIFAR10, ("label", "labels")
    _FOLDERS = ("cifar-10-batches-py", "cifar10", "cifar10_jpeg")
    _FORMS = (
        ("batches.meta", *(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
        _CIFAR._PARQUET,
    )


@dataclass
class CIFAR100(_CIFAR):
    """CIFAR-100 (Krizhevsky 2009), 50,000 + 10,000 RGB 32×32,
    labelled with its 100 fine classes.
    """

    _TITLE, _TORCHVISION = "CIFAR-100", "CIFAR100"
    _NAMES, _LABELS = catalogue.CIFAR100, ("label", "fine_label", "labels")
    _FOLDERS = ("cifar-100-python", "cifar100")
    _FORMS = (("meta", "train", "test"), _CIFAR._PARQUET)


@dataclass
class SVHN(_Torchvision):
    """Street View House Numbers (Netzer et al. 2011), 73,257 + 26,032 RGB 32×32, cropped digits."""

    _TITLE, _TORCHVISION, _ORIGIN = "SVHN", "SVHN", "http://ufldl.stanford.edu/housenumbers"
    _FILES = ("train_32x32.mat", "test_32x32.mat")
    _FOLDERS, _FORMS, _COUNTS = ("svhn",), (_FILES,), (73_257, 26_032)

    def fingerprint(self) -> str:
        """See ``ImageDataset.fingerprint``."""
        return hash_names(self._FILES, self._folder(), self.digests)

    def open(self) -> Source:
        """See ``ImageDataset.open``."""
        images, labels = zip(
            *(_read_mat(self._folder() / file) for file in self._FILES), strict=True
        )
        return self._counted(
            _array_source(images, labels, [str(digit) for digit in range(10)], self._TITLE)
        )

    def _download_as(self, published: Callable, folder: Path) -> None:
        for split in ("train", "test"):
            published(folder / self._FOLDERS[0], split, download=True)


def _read_mat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images ``[n, 32, 32, 3]`` and digits ``[n]``;
    the files say 10 where the digit is 0.
    """
    from scipy.io import loadmat
    from torchvision.datasets import SVHN as published
    from torchvision.datasets.utils import check_md5

    (md5,) = (md5 for _, name, md5 in published.split_list.values() if name == path.name)
    with reading(path, _ORIGINAL):
        if not check_md5(path, md5):  # SciPy's reader crashes the process over some damaged files
            raise ValueError("its checksum is not that of the original")
        part = loadmat(path, variable_names=["X", "y"])
        images, labels = part["X"].transpose(3, 0, 1, 2), part["y"].ravel()
        if (
            images.dtype != np.uint8
            or images.shape[1:] != (32, 32, 3)
            or not np.isin(labels, range(1, 11)).all()
        ):
            raise ValueError("it does not hold the images and labels of SVHN")
        return np.ascontiguousarray(images), labels % 10
