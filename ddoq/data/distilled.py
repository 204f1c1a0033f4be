"""The distilled data set: class folders of PNGs with weights, readable by everybody.

    00_tench/00000.png ...     one folder per class; sorted folder names are label order
    metadata.parquet           file_name, label, class_name, wnid, weight, mass, count, index,
                               source, seed
    classes.json               class names, in label order
    targets.safetensors        soft labels [n, num_classes] and their temperature
                               (only with a teacher)
    images.safetensors         float32 [n, C, H, W] in units of [0, 1], not clipped, for students
                               (only of methods that optimise pixels; the PNGs are these, clipped);
                               its metadata's `partition` p: each holds p × p images

``torchvision.datasets.ImageFolder`` and
``datasets.load_dataset("imagefolder", data_dir=...)`` open it as it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import one_hot
from torch.utils.data import Dataset, TensorDataset

from ddoq.data.floats import FLOATS, as_floats, parts_of, read_floats, read_partition, resized
from ddoq.data.images import to_uint8
from ddoq.errors import DataError
from ddoq.utils.io import atomic_path, read_json, reading, write_json

METADATA, CLASSES, TARGETS = "metadata.parquet", "classes.json", "targets.safetensors"
_ROUNDING = 1e-2  # by which probabilities may miss the sum 1: other people's may be float16
_AGAIN = "write the folder again: the same run, or `run.from=label`, does"


def file_name(label: int, index: int, class_names: list[str]) -> str:
    """Return the relative path of an image; nothing in a class name can leave the folder."""
    width = len(str(len(class_names) - 1))
    slug = re.sub(r"[^A-Za-z0-9]+", "-", class_names[label]).strip("-")[:40] or "class"
    return f"{label:0{width}d}_{slug}/{index:05d}.png"


def file_names(labels: torch.Tensor, index: torch.Tensor, class_names: list[str]) -> list[str]:
    """Return the relative path of every image,
    given the class and the number within the class of each.
    """
    return [
        file_name(c, k, class_names) for c, k in zip(labels.tolist(), index.tolist(), strict=True)
    ]


def write_png(path: Path, image: torch.Tensor) -> None:
    """Write a uint8 image ``[C, H, W]`` atomically."""
    array = image[0] if image.shape[0] == 1 else image.permute(1, 2, 0)
    with atomic_path(path) as temporary:
        Image.fromarray(array.numpy()).save(temporary, format="PNG")


def read_png(path: Path, size: int | None = None) -> torch.Tensor:
    """Read an image as uint8 ``[C, H, W]``;
    ``size``: its side in pixels, if it is not to stay as it is.
    """
    with Image.open(path) as image:
        return to_uint8(image, size or image.width, 1 if image.mode == "L" else 3)


class PNGs(Dataset):
    """Image files by number: item ``i`` is ``(i, uint8 image [C, size, size])``.

    ``size``: side in pixels; ``None`` keeps that of the files.
    """

    def __init__(self, paths: list[Path], size: int | None):
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[int, torch.Tensor]:
        return i, read_png(self.paths[i], self.size)


def write_metadata(
    folder: Path,
    columns: dict[str, list],
    class_names: list[str],
    targets: torch.Tensor | None,
    temperature: float,
) -> None:
    """Write what belongs to the images: one row per image, class names,
    and soft labels if there are any.
    """
    # By this, `datasets` makes the labels a ClassLabel.
    features = {"label": {"_type": "ClassLabel", "names": class_names}}
    described = {"huggingface": json.dumps({"info": {"features": features}})}
    with atomic_path(folder / METADATA) as temporary:
        pq.write_table(pa.table(columns).replace_schema_metadata(described), temporary)
    write_json(folder / CLASSES, class_names)
    if targets is not None:
        with atomic_path(folder / TARGETS) as temporary:
            save_file(
                {"targets": targets.contiguous()},
                temporary,
                metadata={"temperature": str(temperature)},
            )


@dataclass(frozen=True)
class TrainingSet:
    """What a student is trained on, in memory.

    Attributes:
        images: ``[n, C, H, W]``; uint8, or float32 in units of [0, 1], which they may leave.
        targets: class probabilities ``[n, num_classes]``.
        weights: ``[n]``, of mean 1 within each class.
        labels: ``[n]``.
        counts: ``[n]``, training images that each image stands for.
        temperature: at which the targets were made; 1 for hard labels.
    """

    images: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    labels: torch.Tensor
    counts: torch.Tensor
    temperature: float = 1.0

    @classmethod
    def of_images(cls, images: torch.Tensor, labels: torch.Tensor, num_classes: int) -> TrainingSet:
        """Return plain images, each of weight 1 with its hard label, as a training set."""
        ones = torch.ones(len(labels))
        return cls(images, one_hot(labels, num_classes).float(), ones, labels, ones)


class DistilledDataset(Dataset):
    """Weighted images: item ``i`` is ``(float image [C, H, W] in [0, 1], label, weight)``.

    Images that a method has optimised are those of ``images.safetensors``, and may leave [0, 1].

    Args:
        path: a distilled folder (``outputs/runs/<run>/distilled``).
        transform: applied to the image tensor.

    Raises:
        DataError: it is none, or a file in it is damaged.

    Attributes:
        class_names: in label order.
        labels: int64 ``[n]``.
        weights: float32 ``[n]``, mean 1 within each class.
        partition: each image holds so many in the square, which ``training_set`` takes apart.
        metadata: all columns, as NumPy arrays by name.
    """

    def __init__(self, path: str | Path, transform=None):
        self.path, self.transform = Path(path), transform
        if not (self.path / METADATA).is_file():
            raise DataError(
                f"{self.path} is not a distilled data set: it has no {METADATA}",
                "give the folder outputs/runs/<run>/distilled of a finished run",
            )
        with reading(self.path / METADATA, _AGAIN):
            table = pq.read_table(self.path / METADATA)
            self.metadata = {name: np.array(table[name].to_pylist()) for name in table.column_names}
            self.labels = torch.from_numpy(self.metadata["label"].astype(np.int64))
            self.weights = torch.from_numpy(self.metadata["weight"].astype(np.float32))
            require_inside(self.metadata["file_name"].tolist(), self.path)
        with reading(self.path / CLASSES, _AGAIN):
            self.class_names: list[str] = read_json(self.path / CLASSES)
            if not isinstance(self.class_names, list) or not all(
                isinstance(name, str) for name in self.class_names
            ):
                raise ValueError("it is no list of names")
        if not (
            (self.labels >= 0) & (self.labels < len(self.class_names)) & self.weights.isfinite()
        ).all():
            raise DataError(f"{self.path / METADATA} has wrong labels or weights", _AGAIN)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int, float]:
        name = self.metadata["file_name"][i]
        image = as_floats(self._image(name) if self._floats is None else self._floats[i])
        return (
            (self.transform(image) if self.transform else image),
            int(self.labels[i]),
            float(self.weights[i]),
        )

    @cached_property
    def _floats(self) -> torch.Tensor | None:
        """What a method has optimised, ``[n, C, H, W]``; ``None`` where there are only PNGs."""
        if not (self.path / FLOATS).is_file():
            return None
        with reading(self.path / FLOATS, _AGAIN):
            return read_floats(self.path, len(self))

    @cached_property
    def partition(self) -> int:
        """How many images in the square each holds."""
        with reading(self.path / FLOATS, _AGAIN):
            return read_partition(self.path)

    def _image(self, name: str, size: int | None = None) -> torch.Tensor:
        with reading(self.path / name, _AGAIN):
            return read_png(self.path / name, size)

    @property
    def num_parts(self) -> int:
        """How many images that students see each stored one holds."""
        return self.partition**2

    def items(self, size: int) -> Dataset:
        """Return what students see by number, ``(i, image [C, size, size])``, pixels as in
        ``TrainingSet``; PNGs are read on demand.
        """
        if self._floats is None:
            return PNGs([self.path / name for name in self.metadata["file_name"]], size)
        images = self.training_set(size).images
        return TensorDataset(torch.arange(len(images)), images)

    def training_set(self, size: int | None = None, from_pngs: bool = False) -> TrainingSet:
        """Return everything in memory, with soft labels where the data set has them.

        Images that hold others are taken apart: n is then the number of all of these.

        Args:
            size: side of the images in pixels, if they are not to stay as they are.
            from_pngs: take the PNGs, rounded and clipped, where there are floats, too.
        """
        names = self.metadata["file_name"]
        if self._floats is None:
            images = torch.stack([self._image(name, size) for name in names])
        else:
            stored = self._floats
            if from_pngs:
                stored = as_floats(torch.stack([self._image(name) for name in names]))
            images = resized(parts_of(stored, self.partition), size)
        labels, weights = (v.repeat_interleave(self.num_parts) for v in (self.labels, self.weights))
        targets, temperature = one_hot(labels, len(self.class_names)).float(), 1.0
        if (self.path / TARGETS).is_file():
            wanted = targets.shape
            with reading(self.path / TARGETS, _AGAIN), safe_open(self.path / TARGETS, "pt") as file:
                targets = file.get_tensor("targets")
                temperature = float(file.metadata()["temperature"])
                sums = targets.sum(1) if targets.shape == wanted else targets.new_zeros(1)
                if (
                    not (abs(sums - 1) < _ROUNDING).all()
                    or targets.min() < 0
                    or not 0 < temperature < math.inf
                ):
                    raise ValueError(f"no probabilities {tuple(wanted)} at a temperature")
        counts = torch.from_numpy(self.metadata.get("count", np.ones(len(self))).astype(np.float32))
        counts = counts.repeat_interleave(self.num_parts) / self.num_parts
        return TrainingSet(images, targets, weights, labels, counts, temperature)


def require_inside(names: Iterable[Any], folder: Path) -> None:
    """Raise DataError where an image would lie outside the folder;
    the table may come from anybody.
    """
    for name in names:
        path = PureWindowsPath(str(name))  # which takes both kinds of slash for one
        if not isinstance(name, str) or "\0" in name or ".." in path.parts or path.anchor:
            raise DataError(
                f"{folder / METADATA} names an image outside its folder: {str(name)[:200]!r}",
                "do not trust this folder: take it from its origin again",
            )


def load_distilled(path: str | Path, transform=None) -> DistilledDataset:
    """Open a distilled data set. See ``DistilledDataset``."""
    return DistilledDataset(path, transform)
