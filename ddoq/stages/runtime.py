"""What the stages need besides a node's identity: the data's location and the device."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from ddoq.data.base import ImageDataset
from ddoq.data.index_facts import IndexFacts
from ddoq.data.indexed import IndexedImages
from ddoq.data.latents import LatentWriter
from ddoq.experiment.models import Models
from ddoq.pipeline.store import MANIFEST
from ddoq.utils.device import device_of
from ddoq.utils.io import read_json
from ddoq.utils.pretrained import compile_blocks
from ddoq.utils.ranks import Alone


def facts(artefact: Path) -> dict:
    """Return the facts in the manifest of a finished artefact."""
    return read_json(artefact / MANIFEST)["facts"]


def index_facts(artefact: Path) -> IndexFacts:
    """Return what a finished ``index`` says of the data."""
    return IndexFacts.from_facts(facts(artefact))


@dataclass(kw_only=True)
class Runtime:
    """How to compute. Nothing in here may change a result.

    Attributes:
        dataset: the data set, with the location of its files.
        models: finds pretrained models.
        ranks: the processes that compute this run together.
        accelerator, batch_size, num_workers, compile: see ``TrainerConf``.
        num_threads: for items that are independent of each other; of one item, there is one.
    """

    dataset: ImageDataset
    models: Models
    ranks: Alone = field(default_factory=Alone)
    accelerator: str = "auto"
    batch_size: int = 64
    num_workers: int = 0
    compile: bool = False
    num_threads: int = 1
    _tensors: dict = field(default_factory=dict, repr=False)

    def images(self, index: Path, split: str, size: int | None = None) -> IndexedImages:
        """Return the images of a split, decoded on demand;
        ``size``: their side, if it is not the data set's.
        """
        return IndexedImages(self.dataset, index, split, size)

    def tensors(
        self, index: Path, split: str, size: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images and labels of a split, read once per process."""
        wanted = index, split, size or self.dataset.image_size
        if wanted not in self._tensors:
            self._tensors[wanted] = self.images(*wanted).tensors(self.num_workers)
        return self._tensors[wanted]

    @property
    def device(self) -> str:
        """Where plain torch code computes."""
        return device_of(self.accelerator)

    def batches_of_shards(self, writer: LatentWriter) -> list[list[int]]:
        """Return the batches of those shards that are this process's and
        that are not on disk yet.
        """
        shards = [shard for shard in self.ranks.mine(writer.shards()) if not writer.has(shard)]
        return [batch for shard in shards for batch in self.batches(list(writer.positions(shard)))]

    def prepare(self, networks: nn.Module) -> nn.Module:
        """Return networks as they are to run: compiled, where that is asked for."""
        if self.compile:
            compile_blocks(networks)
        return networks

    def batches(self, items: list[int]) -> list[list[int]]:
        """Cut item numbers into batches."""
        return [items[i : i + self.batch_size] for i in range(0, len(items), self.batch_size)]
