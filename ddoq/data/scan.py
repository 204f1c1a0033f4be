"""One look at every image of a data set: is it one, how bright, and there once?
In chunks that survive a killed run.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset

from ddoq.data.base import BadImageError, ImageDataset
from ddoq.data.copies import perceptual_hash
from ddoq.data.deep import DeepImageError, PixelRange, common_range
from ddoq.utils.console import progress_bar
from ddoq.utils.io import atomic_path

CHUNK_SIZE = 4096  # images per part file: the unit of resuming
_BATCH_SIZE = 64  # images that a worker process sends at once; divides the chunk
_NOT_DEEP = (math.nan, math.nan)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is seen of one image of C channels.

    Attributes:
        moments: mean and mean square in [0, 1], float64 ``[2, C]``; 0 for what is no image.
        digest: equal for equal pixels, 64 bits.
        likeness: see ``perceptual_hash``.
        extremes: least and largest value of a 16-bit or float picture; NaN for any other.
        error: the name of what is no image, and why.
    """

    moments: np.ndarray
    digest: int = 0
    likeness: int = 0
    extremes: PixelRange = _NOT_DEEP
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What was seen of n images of C channels; see ``Look``.

    Attributes:
        moments: float64 ``[2, n, C]``.
        digests: int64 ``[n]``.
        likenesses: int64 ``[n]``.
        extremes: float64 ``[n, 2]``.
        errors: by position.
        pixel_range: of the 16-bit and float pictures; ``None`` where there are none.
    """

    moments: np.ndarray
    digests: np.ndarray
    likenesses: np.ndarray
    extremes: np.ndarray
    errors: dict[int, str]
    pixel_range: PixelRange | None = None

    @property
    def deep(self) -> np.ndarray:
        """Positions of the pictures of 16 bits or floats."""
        return np.flatnonzero(~np.isnan(self.extremes[:, 0]))

    @property
    def num_clipped(self) -> int:
        """Number of pictures with values outside the range."""
        if self.pixel_range is None:
            return 0
        black, white = self.pixel_range
        extremes = self.extremes[self.deep]
        return int(((extremes[:, 0] < black) | (extremes[:, 1] > white)).sum())


class _Looks(Dataset):
    """Item ``i`` is the look at image ``i``."""

    def __init__(self, spec: ImageDataset, pixel_range: Sequence[float] | None = None):
        self.spec, self.pixel_range = spec, pixel_range
        self.num = len(spec.opened.labels)

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, i: int) -> Look:
        nothing = np.zeros((2, self.spec.channels))
        try:
            image = self.spec.pixels(i, pixel_range=self.pixel_range).numpy()
        except DeepImageError as deep:
            return Look(moments=nothing, extremes=deep.extremes)
        except BadImageError as error:
            return Look(moments=nothing, error=error.cause)
        digest = hashlib.sha256(image.tobytes()).digest()[:8]
        pixels = image / 255.0
        moments = np.stack([pixels.mean((1, 2)), (pixels**2).mean((1, 2))])
        return Look(
            moments=moments,
            digest=int.from_bytes(digest, signed=True),
            likeness=perceptual_hash(image),
        )


def scan_images(spec: ImageDataset, folder: Path, num_workers: int = 0) -> Scan:
    """Decode every image once. The result does not depend on the number of workers,
    nor on interruptions.

    What was no image in an earlier call is looked at again: it may have been repaired. Pictures of
    16 bits or floats are looked at twice: only when all have been seen is their common range known.

    Args:
        spec: the data set.
        folder: where part files go, and where those of an interrupted call are;
            see ``remove_parts``.
        num_workers: processes that decode; 0 for this one.

    Raises:
        DataError: the machine cannot read an image; what it holds is no reason to stop here. Or
            nothing says which values of deep pictures are black and white.
    """
    items = _Looks(spec)
    chunks = [
        range(start, min(start + CHUNK_SIZE, len(items)))
        for start in range(0, len(items), CHUNK_SIZE)
    ]
    parts = [folder / f"scan-{number:05d}.safetensors" for number in range(len(chunks))]
    part_at = {
        chunk[-1]: (chunk, part)
        for chunk, part in zip(chunks, parts, strict=True)
        if not part.exists()
    }
    resumed = len(part_at) < len(parts)
    missing = [
        chunk[i : i + _BATCH_SIZE]
        for chunk, _ in part_at.values()
        for i in range(0, len(chunk), _BATCH_SIZE)
    ]
    loader = DataLoader(items, batch_sampler=missing, collate_fn=list, num_workers=num_workers)
    looks: list[Look] = []
    with progress_bar("look at every image", len(items)) as bar:
        bar.advance(len(items) - sum(map(len, missing)))
        for positions, batch in zip(missing, loader, strict=True):
            looks += batch
            bar.advance(len(batch))
            if positions[-1] in part_at:
                _write_part(*part_at[positions[-1]], looks)
                looks = []
    scan = _read_parts(parts)
    if resumed:
        _look_again(items, scan, list(scan.errors))
    return _scaled(spec, scan)


def _scaled(spec: ImageDataset, scan: Scan) -> Scan:
    """Return a scan in which 16-bit and float pictures have been looked at
    in their common range.
    """
    if not len(scan.deep):
        return scan
    pixel_range = (
        tuple(spec.pixel_range) if spec.pixel_range else common_range(scan.extremes[scan.deep])
    )
    extremes = scan.extremes.copy()
    _look_again(_Looks(spec, pixel_range), scan, scan.deep.tolist())
    return Scan(
        moments=scan.moments,
        digests=scan.digests,
        likenesses=scan.likenesses,
        extremes=extremes,
        errors=scan.errors,
        pixel_range=pixel_range,
    )


def _look_again(items: _Looks, scan: Scan, positions: list[int]) -> None:
    with progress_bar("look again", len(positions)) as bar:
        for i in positions:
            look = items[i]
            scan.moments[:, i] = look.moments
            scan.digests[i] = look.digest
            scan.likenesses[i] = look.likeness
            scan.extremes[i] = look.extremes
            if look.error is None:
                scan.errors.pop(i, None)
            bar.advance()


def remove_parts(folder: Path) -> None:
    """Remove the part files, those of an earlier form too, once what they were for is written."""
    for part in folder.glob("*.safetensors"):
        part.unlink()


def _write_part(chunk: range, path: Path, looks: list[Look]) -> None:
    errors = {
        str(i): look.error for i, look in zip(chunk, looks, strict=True) if look.error is not None
    }
    tensors = {
        "moments": torch.from_numpy(
            np.stack([look.moments for look in looks], axis=1)
        ).contiguous(),
        "digests": torch.tensor([look.digest for look in looks], dtype=torch.int64),
        "likenesses": torch.tensor([look.likeness for look in looks], dtype=torch.int64),
        "extremes": torch.tensor([look.extremes for look in looks], dtype=torch.float64),
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"errors": json.dumps(errors)})


def _read_parts(parts: list[Path]) -> Scan:
    columns: dict[str, list[np.ndarray]] = {
        "moments": [],
        "digests": [],
        "likenesses": [],
        "extremes": [],
    }
    errors: dict[int, str] = {}
    for path in parts:
        with safe_open(path, "pt") as part:
            for name, pieces in columns.items():
                pieces.append(part.get_tensor(name).numpy())
            errors |= {int(i): error for i, error in json.loads(part.metadata()["errors"]).items()}
    moments = np.concatenate(columns.pop("moments"), axis=1)
    return Scan(
        moments=moments,
        errors=errors,
        **{name: np.concatenate(pieces) for name, pieces in columns.items()},
    )
