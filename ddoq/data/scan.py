"""One look at every image of a data set: can it be read, and how bright is it? In chunks that survive a killed run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset

from ddoq.data.base import ImageDataset
from ddoq.data.images import UNREADABLE, to_uint8
from ddoq.errors import DataError
from ddoq.utils.console import progress_bar
from ddoq.utils.io import atomic_path

CHUNK_SIZE = 4096  # images per part file: the unit of resuming
_BATCH_SIZE = 64  # images that a worker process sends at once; divides the chunk


class _Moments(Dataset):
    """Item ``i`` is mean and mean square of image ``i``, float64 ``[2, C]`` in [0, 1], and ``None`` or its error."""

    def __init__(self, spec: ImageDataset):
        self.spec, self.num = spec, len(spec.opened.labels)

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, i: int) -> tuple[np.ndarray, str | None]:
        spec = self.spec
        try:
            pixels = to_uint8(spec.opened.read(i), spec.image_size, spec.channels, spec.resize).numpy() / 255.0
        except UNREADABLE as error:
            return np.zeros((2, spec.channels)), f"{type(error).__name__}: {error}"
        return np.stack([pixels.mean((1, 2)), (pixels**2).mean((1, 2))]), None


def scan_images(spec: ImageDataset, folder: Path, num_workers: int = 0) -> tuple[np.ndarray, dict[int, str]]:
    """Decode every image once. The result does not depend on the number of workers, nor on interruptions.

    Args:
        spec: the data set.
        folder: where part files go, and where those of an interrupted call are; see ``remove_parts``.
        num_workers: processes that decode; 0 for this one.

    Returns:
        mean and mean square of every image, float64 ``[2, n, C]``, and the errors of unreadable images by position.

    Raises:
        DataError: at the first unreadable image, with ``on_bad_image=error``.
    """
    items = _Moments(spec)
    chunks = [range(start, min(start + CHUNK_SIZE, len(items))) for start in range(0, len(items), CHUNK_SIZE)]
    parts = [folder / f"part-{number:05d}.safetensors" for number in range(len(chunks))]
    part_at = {chunk[-1]: (chunk, part) for chunk, part in zip(chunks, parts, strict=True) if not part.exists()}
    missing = [chunk[i : i + _BATCH_SIZE] for chunk, _ in part_at.values() for i in range(0, len(chunk), _BATCH_SIZE)]
    loader = DataLoader(items, batch_sampler=missing, collate_fn=list, num_workers=num_workers)
    rows: list[tuple[np.ndarray, str | None]] = []
    with progress_bar("look at every image", len(items)) as bar:
        bar.advance(len(items) - sum(map(len, missing)))
        for positions, batch in zip(missing, loader, strict=True):
            _stop_at_errors(spec, positions, batch)
            rows += batch
            bar.advance(len(batch))
            if positions[-1] in part_at:
                _write_part(*part_at[positions[-1]], rows)
                rows = []
    return _read_parts(parts)


def remove_parts(folder: Path) -> None:
    """Remove the part files, once what they were for is written."""
    for part in folder.glob("part-*.safetensors"):
        part.unlink()


def _stop_at_errors(spec: ImageDataset, positions: range, batch: list[tuple[np.ndarray, str | None]]) -> None:
    if spec.on_bad_image != "error":
        return
    for position, (_, error) in zip(positions, batch, strict=True):
        if error is not None:
            raise DataError(
                f"dataset: {spec.opened.describe(position)} cannot be read ({error})",
                "repair or remove it, or set dataset.on_bad_image=skip",
            )


def _write_part(chunk: range, path: Path, rows: list[tuple[np.ndarray, str | None]]) -> None:
    errors = {str(i): error for i, (_, error) in zip(chunk, rows, strict=True) if error is not None}
    moments = torch.from_numpy(np.stack([moments for moments, _ in rows], axis=1))
    with atomic_path(path) as temporary:
        save_file({"moments": moments.contiguous()}, temporary, metadata={"errors": json.dumps(errors)})


def _read_parts(parts: list[Path]) -> tuple[np.ndarray, dict[int, str]]:
    moments, errors = [], {}
    for path in parts:
        with safe_open(path, "pt") as part:
            moments.append(part.get_tensor("moments").numpy())
            errors |= {int(i): error for i, error in json.loads(part.metadata()["errors"]).items()}
    return np.concatenate(moments, axis=1), errors
