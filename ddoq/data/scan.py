"""One look at every image of a data set: is it one, how bright, and there once? In chunks that survive a killed run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset

from ddoq.data.base import BadImageError, ImageDataset
from ddoq.utils.console import progress_bar
from ddoq.utils.io import atomic_path

_Look = tuple[np.ndarray, int, str | None]
CHUNK_SIZE = 4096  # images per part file: the unit of resuming
_BATCH_SIZE = 64  # images that a worker process sends at once; divides the chunk


@dataclass(frozen=True)
class Scan:
    """What was seen of n images of C channels.

    Attributes:
        moments: mean and mean square of every image in [0, 1], float64 ``[2, n, C]``; 0 for those that are none.
        digests: equal for equal pixels, int64 ``[n]``.
        errors: by position, the name of what is no image, and why.
    """

    moments: np.ndarray
    digests: np.ndarray
    errors: dict[int, str]


class _Looks(Dataset):
    """Item ``i`` is mean and mean square of image ``i``, float64 ``[2, C]``, its digest, and ``None`` or its error."""

    def __init__(self, spec: ImageDataset):
        self.spec, self.num = spec, len(spec.opened.labels)

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, i: int) -> _Look:
        try:
            image = self.spec.pixels(i).numpy()
        except BadImageError as error:
            return np.zeros((2, self.spec.channels)), 0, error.cause
        digest = hashlib.sha256(image.tobytes()).digest()[:8]
        pixels = image / 255.0
        return np.stack([pixels.mean((1, 2)), (pixels**2).mean((1, 2))]), int.from_bytes(digest, signed=True), None


def scan_images(spec: ImageDataset, folder: Path, num_workers: int = 0) -> Scan:
    """Decode every image once. The result does not depend on the number of workers, nor on interruptions.

    What was no image in an earlier call is looked at again: it may have been repaired.

    Args:
        spec: the data set.
        folder: where part files go, and where those of an interrupted call are; see ``remove_parts``.
        num_workers: processes that decode; 0 for this one.

    Raises:
        DataError: the machine cannot read an image; what it holds is no reason to stop here.
    """
    items = _Looks(spec)
    chunks = [range(start, min(start + CHUNK_SIZE, len(items))) for start in range(0, len(items), CHUNK_SIZE)]
    parts = [folder / f"looks-{number:05d}.safetensors" for number in range(len(chunks))]
    part_at = {chunk[-1]: (chunk, part) for chunk, part in zip(chunks, parts, strict=True) if not part.exists()}
    resumed = len(part_at) < len(parts)
    missing = [chunk[i : i + _BATCH_SIZE] for chunk, _ in part_at.values() for i in range(0, len(chunk), _BATCH_SIZE)]
    loader = DataLoader(items, batch_sampler=missing, collate_fn=list, num_workers=num_workers)
    rows: list[_Look] = []
    with progress_bar("look at every image", len(items)) as bar:
        bar.advance(len(items) - sum(map(len, missing)))
        for positions, batch in zip(missing, loader, strict=True):
            rows += batch
            bar.advance(len(batch))
            if positions[-1] in part_at:
                _write_part(*part_at[positions[-1]], rows)
                rows = []
    scan = _read_parts(parts)
    if resumed:
        _look_again(items, scan)
    return scan


def _look_again(items: _Looks, scan: Scan) -> None:
    for i in list(scan.errors):
        scan.moments[:, i], scan.digests[i], error = items[i]
        if error is None:
            del scan.errors[i]


def remove_parts(folder: Path) -> None:
    """Remove the part files, those of an earlier form too, once what they were for is written."""
    for part in folder.glob("*.safetensors"):
        part.unlink()


def in_several_classes(scan: Scan, labels: np.ndarray) -> list[list[int]]:
    """Return the positions of equal pictures, those of each together, where their labels ``[n]`` differ."""
    good = np.setdiff1d(np.arange(len(labels)), list(scan.errors))
    order = good[np.argsort(scan.digests[good], kind="stable")]
    digests, labels = scan.digests[order], labels[order]
    starts = np.flatnonzero(np.append(True, digests[1:] != digests[:-1]))
    ends = np.append(starts[1:], len(order))
    differ = np.minimum.reduceat(labels, starts) != np.maximum.reduceat(labels, starts)
    return sorted(sorted(order[start:end].tolist()) for start, end in zip(starts[differ], ends[differ], strict=True))


def _write_part(chunk: range, path: Path, rows: list[_Look]) -> None:
    moments, digests, why = zip(*rows, strict=True)
    errors = {str(i): error for i, error in zip(chunk, why, strict=True) if error is not None}
    tensors = {
        "moments": torch.from_numpy(np.stack(moments, axis=1)).contiguous(),
        "digests": torch.tensor(digests, dtype=torch.int64),
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"errors": json.dumps(errors)})


def _read_parts(parts: list[Path]) -> Scan:
    moments, digests, errors = [], [], {}
    for path in parts:
        with safe_open(path, "pt") as part:
            moments.append(part.get_tensor("moments").numpy())
            digests.append(part.get_tensor("digests").numpy())
            errors |= {int(i): error for i, error in json.loads(part.metadata()["errors"]).items()}
    return Scan(np.concatenate(moments, axis=1), np.concatenate(digests), errors)
