"""Tables of images and labels: which files and columns, how an image is read, what a label is."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as types
from PIL import Image

from ddoq.data.base import Source
from ddoq.data.names import ordered
from ddoq.data.shards import find_shards
from ddoq.data.tree import printable
from ddoq.errors import DataError, did_you_mean, override
from ddoq.utils.io import parse_json, reading

_ONE_FORM = (
    "give all files the same columns and class names, and one label per image: an integer or a name"
)


def open_parquet(
    root: Path,
    image_column: str | Sequence[str],
    label_column: str | Sequence[str],
    class_order: str = "text",
) -> Source:
    """Open the tables of a folder; the encoded images stay in memory-mapped Arrow buffers.

    Args:
        root: see ``find_shards``.
        image_column, label_column: names of the columns; of several, the first that is there.
        class_order: of labels that are names.
    """
    shards = find_shards(root)
    files = [file for _, file in shards]
    tables = [_read(file) for file in files]
    with reading(root, _ONE_FORM):
        columns = [
            (
                _column(table, file, "image_column", image_column),
                _column(table, file, "label_column", label_column),
            )
            for table, file in zip(tables, files, strict=True)
        ]
    parts, classes, sources = [], {}, list(zip(tables, files, columns, strict=True))
    for table, file, (_, label) in sources:
        with reading(file, _ONE_FORM):
            classes[file] = _class_names(table, label)
            parts.append(_values(table[label]))
    splits = [split for split, _ in shards]
    _check_labelled(parts, splits, files, shards.base)
    with reading(root, _ONE_FORM):
        names = _agreed(classes)
        names, labels = _labels(parts, files, names, class_order)
        pictures = [pa.table({"image": table[image]}) for table, _, (image, _) in sources]
        images = pa.concat_tables(pictures, promote_options="permissive")["image"]
    read, describe = _readers(images, root, columns[0][0])
    return Source(
        class_names=names,
        labels=labels,
        split=np.repeat(splits, [len(part) for part in parts]),
        read=read,
        describe=describe,
        provenance=root.name,
        ignored={"Parquet file of no split": len(shards.aside)} if shards.aside else {},
        where={
            split: _shown([printable(file.relative_to(shards.base).as_posix()) for file in files])
            for split, files in shards.files.items()
        },
        notes=[*shards.notes, *_notes(columns, classes, (image_column, label_column))],
    )


def as_options(root: Path, image_columns: Sequence[str], label_columns: Sequence[str]) -> str:
    """Return the options that read the tables of a folder with the same columns
    by ``ParquetImages``.
    """
    table = _read(next(file for _, file in find_shards(root)))
    columns = {"image": image_columns, "label": label_columns}
    chosen = {
        kind: next(name for name in names if name in table.column_names)
        for kind, names in columns.items()
    }
    others = [
        override(f"dataset.{kind}_column", name) for kind, name in chosen.items() if name != kind
    ]
    return " ".join(["dataset=parquet", override("dataset.root", root), *others])


def _read(file: Path) -> pa.Table:
    with reading(file, "replace the file by an undamaged one"):
        if file.suffix.lower() == ".arrow":
            with pa.memory_map(str(file)) as source:
                return pa.ipc.open_stream(source).read_all()
        return pq.read_table(file, memory_map=True)


def _shown(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} …, {len(names)} files"


def _notes(
    columns: Sequence, classes: Mapping[Path, Sequence[str] | None], asked: Sequence
) -> list[str]:
    """Return in words which columns were chosen, and whose class names stand for all files."""
    notes = [
        f"{kind}: column {column}"
        for kind, column, names in zip(("images", "labels"), columns[0], asked, strict=True)
        if not isinstance(names, str) and column != names[0]
    ]
    with_names = [file.name for file, names in classes.items() if names]
    without = [file.name for file, names in classes.items() if not names]
    if with_names and without:
        notes.append(
            f"{_shown(without)} names no classes: its numbers are taken for {with_names[0]}'s"
        )
    return notes


# --- columns ----------------------------------------------------------------------------------


def _column(table: pa.Table, file: Path, key: str, asked: str | Sequence[str]) -> str:
    """Return the name of a column.

    Raises DataError where it is missing; a single one that would do is named.
    """
    wanted = [asked] if isinstance(asked, str) else list(asked)
    for name in wanted:
        if name in table.column_names:
            return name
    fit = _image_columns(table) if key == "image_column" else _label_columns(table)
    cause = f"dataset.{key}: {file} has no column {' or '.join(map(repr, wanted))}"
    if not isinstance(asked, str):  # of a published data set, where columns are no options
        raise DataError(
            cause,
            "rename its column, or read it as what it is: "
            f"dataset=parquet {override('dataset.root', file.parent)}",
        )
    if len(fit) == 1:
        raise DataError(cause, f"did you mean {fit[0]!r}? {override(f'dataset.{key}', fit[0])}")
    raise DataError(cause, did_you_mean(wanted[0], fit or table.column_names))


def _image_columns(table: pa.Table) -> list[str]:
    return [field.name for field in table.schema if _holds_bytes(field.type)]


def _label_columns(table: pa.Table) -> list[str]:
    named = [name for name in table.column_names if _class_names(table, name)]
    kinds = (types.is_integer, types.is_string, types.is_boolean, types.is_dictionary)
    return named or [
        field.name for field in table.schema if any(kind(field.type) for kind in kinds)
    ]


def _holds_bytes(kind: pa.DataType) -> bool:
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return types.is_binary(kind) or types.is_large_binary(kind)


def _holds_paths(images: pa.ChunkedArray) -> bool:
    """Tell whether a column names files in place of holding them, as ``Dataset.to_parquet`` of
    ``datasets`` leaves images that were files. They are not followed: they may point anywhere.
    """
    if not types.is_struct(images.type):
        return types.is_string(images.type) or types.is_large_string(images.type)
    fields = {field.name for field in images.type}
    if "path" not in fields:
        return False
    return "bytes" not in fields or pc.struct_field(images, "bytes").null_count == len(images)


def _readers(images: pa.ChunkedArray, root: Path, column: str) -> tuple[Callable, Callable]:
    """Return what decodes image ``i``, and what names it."""
    if _holds_paths(images):
        raise DataError(
            f"dataset.image_column: column '{column}' of {root} holds paths, no encoded images",
            "give the folder of the files (dataset=image_folder), or embed them: "
            "ds.with_format('arrow').map(datasets.table.embed_table_storage, batched=True)",
        )
    if not _holds_bytes(images.type):
        raise DataError(
            "dataset.image_column: "
            f"column '{column}' of {root} holds {images.type}, no encoded images",
            "choose a column of bytes, or of structs with a field 'bytes'",
        )
    is_struct = pa.types.is_struct(images.type)

    def read(i: int) -> Image.Image:
        value = images[i].as_py()
        content = value and (value["bytes"] if is_struct else value)
        if not content:
            raise ValueError("no bytes")
        return Image.open(io.BytesIO(content))

    def describe(i: int) -> str:
        path = None
        with suppress(UnicodeDecodeError):  # damaged
            path = (images[i].as_py() or {}).get("path") if is_struct else None
        return f"{root} row {i}" + (f" ({path})" if path else "")

    return read, describe


# --- labels -----------------------------------------------------------------------------------


def _class_names(table: pa.Table, column: str) -> list[str] | None:
    """Return the class names of the ClassLabel metadata, where there are any."""
    features = (
        parse_json((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        .get("info", {})
        .get("features", {})
    )
    names = features.get(column, {}).get("names")
    return names and [str(name) for name in names]


def _agreed(classes: Mapping[Path, list[str] | None]) -> list[str] | None:
    """Return the class names that the files state.

    Raises ValueError where they differ, or two are the same.
    """
    stated = {tuple(names): file for file, names in classes.items() if names}
    if len(stated) > 1:
        raise ValueError(
            f"{' and '.join(file.name for file in stated.values())} name the classes differently"
        )
    names = next(map(list, stated), None)
    twice = [name for name, number in Counter(names or []).items() if number > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is the name of {Counter(names)[twice[0]]} classes")
    return names


def _values(column: pa.ChunkedArray) -> np.ndarray:
    """Return the labels of a file ``[n]``: integers, whole floats, booleans or text.

    Raises ValueError for others.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        several = pc.any(pc.not_equal(pc.list_value_length(column), 1)).as_py()
        if several:
            raise ValueError(f"column '{column.type}' has no or several labels for an image")
        column = pc.list_flatten(column)
    if column.null_count:
        raise ValueError(f"{column.null_count} rows without a label")
    if pa.types.is_floating(column.type):
        values = column.to_numpy()
        if np.isnan(values).any():
            raise ValueError(f"{np.isnan(values).sum():,} labels are NaN")
        if not np.array_equal(values, np.round(values)):
            raise ValueError(f"labels are {column.type}, and no whole numbers")
        return values
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return np.array(
            [value.decode("utf-8", "backslashreplace") for value in column.to_pylist()], str
        )
    values = np.array(column.to_pylist(), None if len(column) else np.int64)
    if values.ndim != 1 or values.dtype.kind not in "biuU":
        raise ValueError(f"labels are {column.type}")
    return values


def _check_labelled(
    parts: Sequence[np.ndarray], splits: Sequence[str], files: Sequence[Path], base: Path
) -> None:
    """Raise DataError where a split has no labels:
    they are -1, as in the test files of competitions.
    """
    trained = [part for part, split in zip(parts, splits, strict=True) if split in ("", "train")]
    if any(part.dtype.kind == "i" and (part < 0).any() for part in trained):
        return
    for part, split, file in zip(parts, splits, files, strict=True):
        if split not in ("", "train") and part.dtype.kind == "i" and len(part) and (part < 0).all():
            raise DataError(
                f"dataset: all labels of {file} are {part[0]}: it has none",
                f"leave it out: move {file.name} out of {base}; "
                f"other images are {split} images then",
            )


def _labels(
    parts: Sequence[np.ndarray],
    files: Sequence[Path],
    names: Sequence[str] | None,
    class_order: str,
) -> tuple[list[str], np.ndarray]:
    """Return class names and integer labels:
    from the given names, else from the sorted distinct values.
    """
    filled = [(part, file) for part, file in zip(parts, files, strict=True) if len(part)]
    kinds = {"text" if part.dtype.kind == "U" else "numbers": file.name for part, file in filled}
    if len(kinds) > 1:
        told = ", ".join(f"{kind} in {file}" for kind, file in kinds.items())
        raise ValueError(f"labels of incompatible types: {told}")
    values = np.concatenate([part for part, _ in filled] or parts)
    if names:
        if "text" in kinds or values.dtype.kind == "b":
            raise ValueError("labels are string or boolean, not the numbers of their class names")
        return list(names), values.astype(np.int64)
    if not len(values):
        raise ValueError("there are no rows")
    distinct, labels = np.unique(values, return_inverse=True)
    distinct_names = [str(name) for name in distinct]
    if "text" in kinds and class_order == "number":
        named = ordered(distinct_names, class_order)
        rank = {name: label for label, name in enumerate(named)}
        return named, np.array([rank[name] for name in distinct_names])[labels].astype(np.int64)
    return distinct_names, labels.astype(np.int64)
