"""Latents on disk: shards that can be written in pieces and read by class.

shard-00000.safetensors   latents [m, *shape], float32 or float16
index.parquet             position, label (one row per latent, in shard order)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ddoq.errors import StoreError
from ddoq.utils.handover import Handover
from ddoq.utils.io import atomic_path, reading

_INDEX = "index.parquet"


def _shard_path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.safetensors"


class LatentWriter:
    """Collects latents by position and writes each shard once it is complete.

    Args:
        folder: where the shards go; complete shards of an earlier attempt are kept.
        labels: label of every position, ``[n]``.
        shard_size: latents per shard.
        storage: type on disk.
    """

    def __init__(
        self,
        folder: Path,
        labels: np.ndarray,
        shard_size: int,
        storage: torch.dtype = torch.float32,
    ):
        self.folder = folder
        self.labels = labels
        self.shard_size = shard_size
        self.storage = storage
        self._rows: dict[int, dict[int, torch.Tensor]] = defaultdict(dict)

    def positions(self, shard: int) -> range:
        """Return the positions that belong to a shard."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, len(self.labels)))

    def shards(self) -> list[int]:
        """Return the numbers of all shards."""
        return list(range(-(-len(self.labels) // self.shard_size)))

    def has(self, shard: int) -> bool:
        """Tell whether a shard is on disk."""
        return _shard_path(self.folder, shard).exists()

    def add(self, positions: torch.Tensor, latents: torch.Tensor) -> None:
        """Take a batch of latents ``[B, *shape]`` in any order."""
        for position, latent in zip(
            positions.tolist(), latents.to(self.storage).cpu(), strict=True
        ):
            shard = position // self.shard_size
            self._rows[shard][position] = latent
            if len(self._rows[shard]) == len(self.positions(shard)):
                rows = self._rows.pop(shard)
                stacked = torch.stack([rows[i] for i in self.positions(shard)])
                with atomic_path(_shard_path(self.folder, shard)) as temporary:
                    save_file({"latents": stacked.contiguous()}, temporary)

    def finish(self) -> None:
        """Write the index; call it when nothing is missing."""
        table = pa.table({"position": np.arange(len(self.labels)), "label": self.labels})
        with atomic_path(self.folder / _INDEX) as temporary:
            pq.write_table(table, temporary)


class StoredLatents:
    """The latents of a finished ``encode`` artefact. Only what is asked for is read.

    Args:
        folder: of the artefact.
        labels: of the images that they have to be latents of, ``[n]``, where those are known.

    Raises:
        StoreError: a file is damaged or missing, or latents are not finite, not of one shape, not
            as many as there are labels, or of other images.
    """

    def __init__(self, folder: Path, labels: np.ndarray | None = None):
        self._remedy = f"remove {folder} and run again"
        self._handover = Handover(f"{folder}", "latents", self._remedy, StoreError)
        with reading(folder / _INDEX, self._remedy, StoreError):
            self.labels = pq.read_table(folder / _INDEX)["label"].to_numpy()
        self._shards = sorted(folder.glob("shard-*.safetensors"))
        with reading(folder, self._remedy, StoreError), safe_open(self._shards[0], "pt") as shard:
            self._shard_size, *shape = shard.get_slice("latents").get_shape()
            if not self._shard_size or -(-len(self.labels) // self._shard_size) != len(
                self._shards
            ):
                raise ValueError(f"{len(self._shards)} shards for {len(self.labels)} latents")
        self.shape = tuple(shape)
        if labels is not None:
            self._handover.order(self.labels, labels)

    def __len__(self) -> int:
        return len(self.labels)

    def of_class(self, label: int) -> tuple[np.ndarray, torch.Tensor]:
        """Return the positions ``[n]`` and latents ``[n, *shape]`` of a class."""
        positions = self.positions(label)
        return positions, self.at(positions)

    def positions(self, label: int) -> np.ndarray:
        """Return the positions ``[n]`` of a class."""
        return np.flatnonzero(self.labels == label)

    def pieces(self, label: int) -> Iterator[torch.Tensor]:
        """Return the latents of a class shard by shard,
        ``[m, *shape]``: no more than a shard's in memory.
        """
        positions = self.positions(label)
        for shard in np.unique(positions // self._shard_size):
            yield self.at(positions[positions // self._shard_size == shard])

    def at(self, positions: np.ndarray) -> torch.Tensor:
        """Return the latents at ascending positions, ``[n, *shape]``, float32."""
        parts = []
        for number in np.unique(positions // self._shard_size):
            first = number * self._shard_size
            rows = positions[positions // self._shard_size == number] - first
            path = self._shards[number]
            with reading(path, self._remedy, StoreError), safe_open(path, "pt") as shard:
                stored, num = shard.get_slice("latents"), min(self._shard_size, len(self) - first)
                self._handover.shape(stored.get_shape(), (num, *self.shape))
                parts.append(self._handover.finite(stored[rows.tolist()].float()))
        return torch.cat(parts) if parts else torch.empty(0, *self.shape)
