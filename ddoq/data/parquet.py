"""Hugging Face style image Parquet: a column of ``{bytes, path}`` structs and a column of labels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from ddoq.data.base import ImageDataset, Source, hash_files
from ddoq.errors import DataError, did_you_mean
from ddoq.utils.io import parse_json, reading

_ONE_FORM = "give all files the same columns and class names, and one label per image: an integer or a name"
_PREFIXES = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}


@dataclass
class ParquetImages(ImageDataset):
    """A folder of ``train*.parquet``, ``validation*.parquet`` and ``test*.parquet`` files.

    With no test file, the validation file is the test set and validation images are drawn from train.
    """

    image_column: str = "image"
    label_column: str = "label"

    def fingerprint(self) -> str:
        """See ``ImageDataset.fingerprint``."""
        folder = self._folder()
        return hash_files(chain(*parquet_files(folder).values()), folder, self.digests)

    def open(self) -> Source:
        """See ``ImageDataset.open``."""
        return open_parquet(self._folder(), self.image_column, self.label_column)

    def _folder(self) -> Path:
        if not self.root or not Path(self.root).is_dir():
            raise DataError(
                f"dataset.root: {self.root!r} is not a folder",
                "set dataset.root to a folder that holds train*.parquet files",
            )
        return Path(self.root)


def parquet_files(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each split, in name order. Raises DataError where there is no training file."""
    found = {
        split: sorted(file for file in folder.glob("*.parquet") if file.name.startswith(prefixes))
        for split, prefixes in _PREFIXES.items()
    }
    found = {split: files for split, files in found.items() if files}
    for file in (file for files in found.values() for file in files):
        if not file.is_file():  # a pipe would block, and a link to nothing lose its rows
            raise DataError(f"dataset: {file} is no file", "repair or remove it")
    if "train" not in found:
        raise DataError(f"dataset: no train*.parquet in {folder}", "name the files train*.parquet, test*.parquet")
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    return found


def open_parquet(folder: Path, image_column: str, label_column: str) -> Source:
    """Open the Parquet files of a folder; the encoded images stay in memory-mapped Arrow buffers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables, split, classes = [], [], {}
    for name, files in parquet_files(folder).items():
        for file in files:
            with reading(file, "replace the file by an undamaged one"):
                table = pq.read_table(file, memory_map=True)
            for key, column in (("image_column", image_column), ("label_column", label_column)):
                if column not in table.column_names:
                    raise DataError(
                        f"dataset.{key}: {file} has no column '{column}'", did_you_mean(column, table.column_names)
                    )
            with reading(file, _ONE_FORM):
                if names := _class_names(table, label_column):
                    classes[tuple(names)] = file
            tables.append(table.select([image_column, label_column]))
            split += [name] * len(table)
    with reading(folder, _ONE_FORM):
        if len(classes) > 1:
            raise ValueError(f"{' and '.join(file.name for file in classes.values())} name the classes differently")
        table = pa.concat_tables(tables, promote_options="default")
        names, labels = _labels(table[label_column], next(iter(classes), None))
    images = table[image_column]
    is_struct = pa.types.is_struct(images.type)
    kind = images.type.field("bytes").type if is_struct and images.type.get_field_index("bytes") >= 0 else images.type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(
            f"dataset.image_column: column '{image_column}' of {folder} holds {images.type}, no encoded images",
            "choose a column of bytes, or of structs with a field 'bytes'",
        )

    def read(i: int) -> Image.Image:
        value = images[i].as_py()
        content = value and (value["bytes"] if is_struct else value)
        if not content:  # a path beside it may point anywhere, and is not followed
            raise ValueError("no bytes")
        return Image.open(io.BytesIO(content))

    def describe(i: int) -> str:
        path = (images[i].as_py() or {}).get("path") if is_struct else None
        return f"{folder} row {i}" + (f" ({path})" if path else "")

    others = len(list(folder.glob("*.parquet"))) - len(tables)
    ignored = {"Parquet file of no split": others} if others else {}
    return Source(names, labels, np.array(split), read, describe, folder.name, ignored=ignored)


def _class_names(table, column: str) -> list[str] | None:
    """Return the class names of the ClassLabel metadata, where there are any."""
    features = parse_json((table.schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names = features.get(column, {}).get("names")
    return names and [str(name) for name in names]


def _labels(column, names: Sequence[str] | None) -> tuple[list[str], np.ndarray]:
    """Return class names and integer labels: from the given names, else from the sorted distinct values."""
    if column.null_count:
        raise ValueError(f"{column.null_count} rows without a label")
    values = np.array(column.to_pylist())
    if names:
        if values.dtype.kind not in "iu":
            raise ValueError(f"labels are {column.type}, not the numbers of their class names")
        return list(names), values.astype(np.int64)
    if not len(values):
        raise ValueError("there are no rows")
    distinct, labels = np.unique(values, return_inverse=True)
    return [str(name) for name in distinct], labels.astype(np.int64)
