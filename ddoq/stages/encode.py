"""encode: every training image to its latent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ddoq.errors import StageError
from ddoq.pipeline.graph import Node
from ddoq.stages.runtime import Runtime, build

VERSION = 1
SHARD_SIZE = 4096  # latents per file: the unit of resuming


def load_encoder(identity: Mapping, inputs: Mapping[str, Path], runtime: Runtime):
    """Return the encoder that a node's identity names, from its input folder or from pretrained weights."""
    role = "features" if identity["encoder"]["name"] == "features" else "encoder"
    path = str(inputs["encoder"]) if "encoder" in inputs else runtime.weights[role]
    return build(identity["encoder"], **({"path": path} if path else {})).eval()


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write latent shards and their index; facts: number, shape, mean and standard deviation."""
    import torch

    from ddoq.data.images import to_unit
    from ddoq.data.latents import Latents, LatentWriter
    from ddoq.engine.trainer import predict_batches

    encoder = load_encoder(node.identity, inputs, runtime)
    images = runtime.images(inputs["index"], "train")
    writer = LatentWriter(folder, images.labels, SHARD_SIZE)

    def encode(batch) -> torch.Tensor:
        latents = encoder.encode(to_unit(batch[1]))
        bad = ~latents.flatten(1).isfinite().all(1)
        if bad.any():
            raise StageError(
                f"encode: {int(bad.sum())} latents of a batch of {len(bad)} are NaN or infinite",
                "check the encoder's weights (encoder.path) and its precision",
            )
        return latents

    predict_batches(
        encode,
        encoder,
        images,
        runtime.batches(writer.missing()),
        lambda b, z: writer.add(b[0], z),
        title="encode",
        accelerator=runtime.accelerator,
        num_workers=runtime.num_workers,
    )
    writer.finish()
    latents = Latents(folder)
    sample = latents.at(torch.arange(min(len(latents), SHARD_SIZE)).numpy())
    return {"num": len(latents), "shape": list(latents.shape), "mean": sample.mean().item(), "std": sample.std().item()}
