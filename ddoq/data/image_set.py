"""The images of an arm before they have weights: what every route to images ends in.

Points that were pushed forward are PNGs in class folders, described by their codebook. A method
that optimises images writes a folder that describes itself:

    00_tench/00000.png ...   the images clipped to [0, 255]: for people, ImageFolder, timm
    images.safetensors       float32 [n, C, H, W] in units of [0, 1], not clipped: for students;
                             `partition` p in its metadata: each holds p × p images
    images.parquet           file_name, label, index, count, source

A choice among several draws of points is the same without ``images.safetensors``: students see its
PNGs.

Students take the floats wherever a distilled folder has ``images.safetensors``: they become
``TrainingSet.images`` as they are, and ``ViewMaker`` divides only uint8 pixels by 255. So the
normalised images that a student sees are those that the method optimised, up to rounding in
float32, and not what is left of them after clipping to 256 values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from ddoq.data.distilled import PNGs, file_names, read_png, require_inside, write_png
from ddoq.data.floats import (
    FLOATS,
    parts_of,
    read_floats,
    read_partition,
    resized,
    to_bytes,
    write_floats,
)
from ddoq.errors import StoreError
from ddoq.utils.handover import Handover
from ddoq.utils.io import atomic_path, reading

TABLE = "images.parquet"
_COLUMNS = {"labels": "label", "index": "index", "counts": "count", "sources": "source"}


class _Points(Protocol):
    """What is taken of points: int64 ``[n]`` each. See ``ddoq.quantizers.codebook``."""

    labels: Tensor
    index: Tensor
    counts: Tensor
    sources: Tensor


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images of an arm before they have weights, class by class.

    Attributes:
        folder: where the files are.
        names: relative path of every image's PNG ``[n]``.
        labels: class of each image, int64 ``[n]``.
        index: number of the image within its class, int64 ``[n]``.
        counts: training images that each image stands for, int64 ``[n]``; 1 where there are no
            masses.
        sources: position among the training images of the one nearest to the point, or of the
            one that the image started as; -1 for none or several; int64 ``[n]``.
        partition: each image holds so many in the square: the set has n images, students see
            ``n * partition²``.
    """

    folder: Path
    names: Sequence[str]
    labels: Tensor
    index: Tensor
    counts: Tensor
    sources: Tensor
    partition: int = 1

    @classmethod
    def of_points(cls, folder: Path, points: _Points, class_names: Sequence[str]) -> ImageSet:
        """Return the images that were made of points.

        Args:
            folder: of the ``generate`` artefact.
            points: the codebooks of all classes.
            class_names: in label order.

        Raises:
            StoreError: images are missing.
        """
        columns = {name: getattr(points, name) for name in _COLUMNS}
        names = file_names(points.labels, points.index, list(class_names))
        return _complete(cls(folder=folder, names=names, **columns))

    @classmethod
    def load(cls, folder: Path) -> ImageSet:
        """Return the images that a method wrote. See ``write_image_set``.

        Raises:
            StoreError: the table is damaged, or images are missing.
        """
        with reading(folder / TABLE, _again(folder), StoreError):
            table = pq.read_table(folder / TABLE, columns=["file_name", *_COLUMNS.values()])
            names = table["file_name"].to_pylist()
            require_inside(names, folder)
            columns = {key: _integers(table, column) for key, column in _COLUMNS.items()}
        with reading(folder / FLOATS, _again(folder), StoreError):
            partition = read_partition(folder)
        return _complete(cls(folder=folder, names=names, partition=partition, **columns))

    @property
    def files(self) -> list[str]:
        """All files of the images, relative to the folder."""
        floats = [FLOATS] if (self.folder / FLOATS).is_file() else []
        return [*self.names, *floats]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels_of_pixels(self) -> Tensor:
        """Class of each image that students see, int64 ``[n * partition²]``."""
        return self.labels.repeat_interleave(self.partition**2)

    def items(self, size: int | None = None) -> Dataset:
        """Return what students see by number, ``(i, image [C, size, size])``.

        PNGs are read on demand.

        Pixels are float32 in units of [0, 1], not clipped, where there is ``images.safetensors``,
        and uint8 elsewhere; ``ddoq.data.floats.as_floats`` takes both.
        """
        if (self.folder / FLOATS).is_file():
            return TensorDataset(torch.arange(len(self.labels_of_pixels)), self.pixels(size))
        return PNGs([self.folder / name for name in self.names], size)

    def pixels(self, size: int | None = None) -> Tensor:
        """Return all that students see ``[n * partition², C, size, size]``, as ``items`` has them.

        Args:
            size: side in pixels, if they are not to stay as they are.

        Raises:
            StoreError: a file is damaged.
        """
        if (self.folder / FLOATS).is_file():
            with reading(self.folder / FLOATS, _again(self.folder), StoreError):
                return resized(parts_of(read_floats(self.folder, len(self)), self.partition), size)
        with reading(self.folder, _again(self.folder), StoreError):
            return torch.stack([read_png(self.folder / name, size) for name in self.names])


def write_image_set(
    folder: Path,
    images: Tensor,
    class_names: Sequence[str],
    *,
    labels: Tensor,
    index: Tensor,
    counts: Tensor,
    sources: Tensor,
    partition: int = 1,
) -> None:
    """Write the images of a method in the three forms that are listed above.

    Args:
        folder: gets them.
        images: float32 ``[n, C, H, W]`` in units of [0, 1]; they may leave it.
        class_names: in label order.
        labels, index, counts, sources, partition: see ``ImageSet``.
    """
    names = file_names(labels, index, list(class_names))
    write_pngs(folder, images, names)
    write_floats(folder, images, partition)
    write_table(folder, names, labels=labels, index=index, counts=counts, sources=sources)


def write_table(
    folder: Path,
    names: Sequence[str],
    *,
    labels: Tensor,
    index: Tensor,
    counts: Tensor,
    sources: Tensor,
    **others: Tensor,
) -> None:
    """Write ``images.parquet``, which describes the images of a folder.

    Args:
        folder: where they are.
        names: relative paths of the PNGs.
        labels, index, counts, sources: see ``ImageSet``.
        others: columns for people, ``[n]`` each.
    """
    columns = {"labels": labels, "index": index, "counts": counts, "sources": sources}
    rows = {_COLUMNS[key]: values.numpy() for key, values in columns.items()}
    rows |= {name: values.numpy() for name, values in others.items()}
    with atomic_path(folder / TABLE) as temporary:
        pq.write_table(pa.table({"file_name": names} | rows), temporary)


def write_pngs(folder: Path, images: Tensor, names: Sequence[str]) -> None:
    """Write images ``[n, C, H, W]`` in units of [0, 1], clipped, under their names."""
    for name, image in zip(names, to_bytes(images), strict=True):
        write_png(folder / name, image)


def _integers(table: pa.Table, column: str) -> Tensor:
    """Return a column as int64 ``[n]``. Raises ValueError where it holds what it cannot."""
    values, lowest = table[column].to_numpy(), -1 if column == "source" else 0
    if values.dtype != np.int64 or (values < lowest).any():
        raise ValueError(f"'{column}' is no column of whole numbers from {lowest} on")
    return torch.tensor(values)


def _complete(images: ImageSet) -> ImageSet:
    """Return a set as it is, if all its PNGs are there."""
    num_there = sum((images.folder / name).is_file() for name in images.names)
    handover = Handover(f"{images.folder}", "images", _again(images.folder), StoreError)
    handover.count(num_there, len(images))
    return images


def _again(folder: Path) -> str:
    return f"remove {folder} and run again"
