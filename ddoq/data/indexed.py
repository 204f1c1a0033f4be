"""Images of one split, as listed by the ``index`` artefact."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset

from ddoq.data.base import ImageDataset, Source
from ddoq.utils.console import progress_bar
from ddoq.utils.io import atomic_path

INDEX = "index.parquet"
_RANGE = "pixel_range"


def write_index(
    folder: Path, source: Source, split: np.ndarray, pixel_range: Sequence[float] | None = None
) -> None:
    """Write one row per image that is used: its position in the source, label, split and name.

    The range of 16-bit and float pictures, where there are any, stands in the table's metadata.
    """
    ids = np.flatnonzero(split != "")
    table = pa.table(
        {
            "id": ids,
            "label": source.labels[ids],
            "split": split[ids],
            "name": [source.describe(int(i)) for i in ids],
        }
    )
    if pixel_range is not None:
        table = table.replace_schema_metadata({_RANGE: json.dumps(list(pixel_range))})
    with atomic_path(folder / INDEX) as temporary:
        pq.write_table(table, temporary)


def labels_of(index: Path, split: str) -> np.ndarray:
    """Return the labels of the images of a split, ``[n]``, in their order;
    see ``IndexedImages``.
    """
    table = pq.read_table(
        index / INDEX, columns=["label", "split"], filters=[("split", "=", split)]
    )
    return table["label"].to_numpy()


class IndexedImages(Dataset):
    """Map-style data set of one split: item ``i`` is
    ``(position, uint8 image [C, size, size], label)``.

    Args:
        spec: the data set.
        index: folder of its ``index`` artefact.
        split: one of ``SPLITS``.
        size: side of the images in pixels; ``None`` for that of ``spec``.
    """

    def __init__(self, spec: ImageDataset, index: Path, split: str, size: int | None = None):
        table = pq.read_table(
            index / INDEX, columns=["id", "label", "split"], filters=[("split", "=", split)]
        )
        self.ids = table["id"].to_numpy()
        self.labels = table["label"].to_numpy()
        stated = (table.schema.metadata or {}).get(_RANGE.encode())
        self.pixel_range = json.loads(stated) if stated else None
        self.spec, self.split = spec, split
        self.size = spec.image_size if size is None else size
        # Opened before worker processes are forked, which then need not list the files again.
        _ = spec.opened

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> tuple[int, torch.Tensor, int]:
        return (
            i,
            self.spec.pixels(int(self.ids[i]), self.size, self.pixel_range),
            int(self.labels[i]),
        )

    def tensors(self, num_workers: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Return all images as uint8 ``[n, C, size, size]`` and their labels ``[n]``."""
        images = torch.empty(
            (len(self), self.spec.channels, self.size, self.size), dtype=torch.uint8
        )
        with progress_bar(f"read {self.split} images", len(self)) as bar:
            for positions, batch, _ in DataLoader(self, batch_size=64, num_workers=num_workers):
                images[positions] = batch
                bar.advance(len(batch))
        return images, torch.tensor(self.labels)
