"""What networks make of a set of images, by several processes, so that it can be resumed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset

from ddoq.data.latents import LatentWriter, StoredLatents
from ddoq.engine.trainer import predict_batches
from ddoq.stages.runtime import Runtime
from ddoq.utils.handover import Batches

_PART_SIZE = 256  # images: the unit of resuming, and of sharing out among processes


def outputs_in_parts(
    function: Callable[[Tensor], Tensor],
    network: nn.Module,
    items: Dataset,
    labels: np.ndarray,
    promised: Batches,
    folder: Path,
    title: str,
    runtime: Runtime,
) -> Tensor | None:
    """Return what a function makes of every image, float32 ``[n, *shape]``, on the first process;
    ``None`` on the others.

    Args:
        function: from a batch of images as the items have them to ``[B, *shape]``.
        network: what of it has to be on the device.
        items: ``(i, image)`` by number.
        labels: class of each, ``[n]``.
        promised: what outputs have to be.
        folder: holds finished parts until all are there.
        title: of the progress bar.
        runtime: how to compute.
    """
    writer = LatentWriter(folder, labels, _PART_SIZE)
    predict_batches(
        lambda batch: function(batch[1]),
        network,
        items,
        runtime.batches_of_shards(writer),
        promised,
        lambda batch, outputs: writer.add(batch[0], outputs),
        title=title,
        accelerator=runtime.accelerator,
    )
    runtime.ranks.gather()
    if runtime.ranks.rank:
        return None
    writer.finish()
    outputs = StoredLatents(folder, labels).at(np.arange(len(labels)))
    shutil.rmtree(folder)
    return outputs
