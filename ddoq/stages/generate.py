"""generate: points to images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ddoq.config.build import build
from ddoq.data.base import SPLITS
from ddoq.data.distilled import file_names, write_png
from ddoq.data.images import from_unit, with_channels
from ddoq.engine.memory import FittingBatches
from ddoq.engine.trainer import predict_batches
from ddoq.generators import ImageGenerator, LatentDiffusion
from ddoq.generators.base import Points
from ddoq.pipeline.graph import Node
from ddoq.quantizers.codebook import ClassCodebooks
from ddoq.stages.guidances import cells_of, load_guidance, most_at_once
from ddoq.stages.invert import draws_of
from ddoq.stages.models import load_encoder, load_pretrained_generator
from ddoq.stages.precision import require_precision
from ddoq.stages.quantize import load_points
from ddoq.stages.rounds import batches_of_classes, in_rounds
from ddoq.stages.runtime import Runtime, index_facts
from ddoq.utils.handover import Batches, Handover
from ddoq.utils.seeding import item_seed


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write one PNG per point, in class folders; facts: number of images."""
    points = load_points(inputs)
    further = [number] if (number := node.identity.get("draw")) else []
    if "invert" in inputs:
        seed = (node.identity["seed"], "statistics", *further)
        num_sets = node.identity["generator"]["num_sets"]
        points = replace(points, latents=draws_of(inputs["invert"], points, num_sets, *seed))
    class_names = index_facts(inputs["index"]).class_names
    names = file_names(points.labels, points.index, class_names)
    generator = _generator(node, inputs, points, runtime)
    most = most_at_once(generator, points.latents.shape[1:], runtime.device)
    fitting = FittingBatches("generate", most)
    remembers = any(guidance.uses_memory for guidance in generator.guidances)
    seeds = [
        item_seed(node.identity.get("seed"), "noise", label, index, *further)
        for label, index in zip(points.labels.tolist(), points.index.tolist(), strict=True)
    ]

    def generate(batch) -> torch.Tensor:
        numbers, latents, labels, sources = batch
        some = Points(latents, labels, sources, [seeds[i] for i in numbers.tolist()])
        if remembers:
            images = in_rounds(generator, some, points.index[numbers.cpu()], fitting)
        else:
            images = fitting(len(some), lambda rows: generator.generate(some.part(rows)))
        return with_channels(images, runtime.dataset.channels)

    def write(batch, images: torch.Tensor) -> None:
        for number, image in zip(batch[0].tolist(), from_unit(images.cpu()), strict=True):
            write_png(folder / names[number], image)

    # A batch is repeated whole if one of its images is missing:
    # in another batch, the last bit may round otherwise.
    everything = (
        batches_of_classes(points.labels, runtime.batch_size)
        if remembers
        else runtime.batches(list(range(len(points))))
    )
    batches = [
        batch
        for batch in runtime.ranks.mine(everything)
        if not all((folder / names[i]).exists() for i in batch)
    ]
    items = torch.utils.data.TensorDataset(
        torch.arange(len(points)), points.latents, points.labels, points.sources
    )
    images = Handover(
        "generate",
        "images",
        "set dataset.image_size and dataset.channels to what the decoder makes",
    )
    size = runtime.dataset.image_size
    predict_batches(
        generate,
        _prepared(generator, runtime),
        items,
        batches,
        Batches(images, (runtime.dataset.channels, size, size)),
        write,
        title=f"generate {node.title}",
        accelerator=runtime.accelerator,
    )
    runtime.ranks.gather()
    return {"num_images": len(points)}


def _prepared(generator: ImageGenerator, runtime: Runtime) -> nn.Module:
    """Return the networks, compiled if that is asked for and no guidance looks into them."""
    networks = generator.networks()
    if any(guidance.replaces_embedding for guidance in generator.guidances):
        return networks
    return runtime.prepare(networks)


def _generator(
    node: Node, inputs: Mapping[str, Path], points: ClassCodebooks, runtime: Runtime
) -> ImageGenerator:
    """Return the generator; one that was fitted here is tried first,
    if it is to work in another precision.
    """
    conf = node.identity["generator"]
    if conf["name"] == "real":
        return build(conf, images=runtime.images(inputs["index"], SPLITS[0]))
    encoder = load_encoder(node.identity, inputs, runtime)
    if conf["name"] == "decode":
        return build(conf, encoder=encoder)
    space, path = index_facts(inputs["index"]).space, str(inputs.get("model"))
    steering = {}
    if confs := node.identity.get("guidances"):
        guidances = [load_guidance(guidance, node, inputs, runtime) for guidance in confs]
        steering = {"guidances": guidances, "cells": cells_of(points)}
    if "model" not in inputs:
        path = runtime.models.place(node.identity["model"], conf)
    elif conf["precision"] != "float32":

        def make(precision: str) -> LatentDiffusion:
            return load_pretrained_generator(conf | {"precision": precision}, path, None, space)

        require_precision(make, conf["precision"], points.latents[:4], points.labels[:4], runtime)
    return load_pretrained_generator(conf, path, encoder, space, **steering)
