"""encode: every training image to its latent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ddoq.data.images import to_unit
from ddoq.data.latents import LatentWriter, StoredLatents
from ddoq.engine.memory import FittingBatches
from ddoq.engine.trainer import predict_batches
from ddoq.pipeline.graph import Node
from ddoq.stages.models import load_encoder_of
from ddoq.stages.runtime import Runtime
from ddoq.utils.handover import Batches, Handover
from ddoq.utils.seeding import item_seed

SHARD_SIZE = 1024  # latents per file: the unit of resuming, and of sharing out among processes


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write latent shards and their index; facts:
    number, shape, type on disk, mean and standard deviation.
    """
    encoder = load_encoder_of(node, inputs, runtime)
    images = runtime.images(inputs["index"], "train")
    writer = LatentWriter(folder, images.labels, SHARD_SIZE, encoder.storage)
    fitting = FittingBatches("encode")

    def encode(batch) -> torch.Tensor:
        positions, pixels, _ = batch
        pixels = to_unit(pixels)
        seeds = [item_seed("posterior", position) for position in positions.tolist()]
        return fitting(len(pixels), lambda rows: encoder.encode(pixels[rows], seeds[rows])).to(
            encoder.storage
        )

    predict_batches(
        encode,
        runtime.prepare(encoder),
        images,
        runtime.batches_of_shards(writer),
        Batches(Handover("encode", "latents", encoder.remedy)),
        lambda batch, latents: writer.add(batch[0], latents),
        title="encode",
        accelerator=runtime.accelerator,
        num_workers=runtime.num_workers,
    )
    runtime.ranks.gather()
    if runtime.ranks.rank:
        return {}
    writer.finish()
    latents = StoredLatents(folder)
    sample = latents.at(np.unique(np.linspace(0, len(latents) - 1, 4096).astype(int)))
    return {
        "num": len(latents),
        "shape": list(latents.shape),
        "storage": str(encoder.storage).removeprefix("torch."),
        "mean": sample.mean().item(),
        "std": sample.std().item(),
    }
