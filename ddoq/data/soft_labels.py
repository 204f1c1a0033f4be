"""Soft labels on disk: the teacher's logits of every view of every image.

view-00000.npy ...   logits of each image's view in that epoch, float16 [num_images, num_classes]
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddoq.errors import StoreError
from ddoq.utils.handover import Handover
from ddoq.utils.io import atomic_path, reading

BYTES_PER_LOGIT = 2


def view_path(folder: Path, epoch: int) -> Path:
    """Return the file of the views of one epoch."""
    return folder / f"view-{epoch:05d}.npy"


class ViewWriter:
    """Collects logits by image and epoch and writes the file of an epoch once it is complete.

    Args:
        folder: where the files go; those of an earlier attempt are kept.
        missing: by epoch, the images that are seen in it.
        num_images: of the data set; the last epoch may not see all of them.
    """

    def __init__(self, folder: Path, missing: dict[int, int], num_images: int):
        self.folder, self.missing, self.num_images = folder, dict(missing), num_images
        self._views: dict[int, np.ndarray] = {}

    def add(self, rows: Tensor, epochs: Tensor, logits: Tensor) -> None:
        """Take the logits ``[B, C]`` of the views of some images in some epochs."""
        values = logits.half().cpu().numpy()
        for epoch in epochs.unique().tolist():
            if epoch not in self.missing:
                continue
            mine = (epochs == epoch).cpu().numpy()
            views = self._views.setdefault(
                epoch, np.full((self.num_images, logits.shape[1]), np.nan, np.float16)
            )
            views[rows.cpu().numpy()[mine]] = values[mine]
            self.missing[epoch] -= int(mine.sum())
            if not self.missing[epoch]:
                with (
                    atomic_path(view_path(self.folder, epoch)) as temporary,
                    temporary.open("wb") as file,
                ):
                    np.save(file, self._views.pop(epoch), allow_pickle=False)


class StoredLabels:
    """Looks stored logits up; only what is asked for is read.

    Args:
        folder: of a finished ``relabel`` artefact.
        shape: of one epoch's logits, ``[num_images, num_classes]``, where that is known.
    """

    def __init__(self, folder: Path, shape: tuple[int, int] | None = None):
        self._folder, self._shape, self._remedy = folder, shape, f"remove {folder} and run again"
        self._logits = Handover(f"{folder}", "logits of views", self._remedy, StoreError)
        self._open = lru_cache(maxsize=8)(self._read)

    def _read(self, epoch: int) -> np.ndarray:
        path = view_path(self._folder, epoch)
        with reading(path, self._remedy, StoreError):
            views = np.load(path, mmap_mode="r", allow_pickle=False)
        self._logits.shape(views.shape, self._shape or views.shape)
        return views

    def __call__(self, rows: Tensor, epochs: Tensor) -> Tensor:
        """Return the logits ``[B, C]``, float16, of images in epochs, int64 ``[B]`` each.

        Raises:
            StoreError: an image was not seen in that epoch, or files are damaged.
        """
        logits: Sequence[np.ndarray] = [
            self._open(epoch)[row]
            for row, epoch in zip(rows.tolist(), epochs.tolist(), strict=True)
        ]
        return self._logits.finite(torch.from_numpy(np.stack(logits)))
