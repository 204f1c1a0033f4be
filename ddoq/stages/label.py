"""label: give every image its weight, and with a teacher its label; the result is the distilled data set."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ddoq.config.build import build
from ddoq.data.distilled import PNGs, write_metadata
from ddoq.data.latents import Latents, LatentWriter
from ddoq.engine.trainer import predict_batches
from ddoq.pipeline.graph import Node
from ddoq.quantizers.codebook import ClassCodebooks
from ddoq.quantizers.measures import effective_size
from ddoq.stages.generate import generated_files
from ddoq.stages.models import load_teacher
from ddoq.stages.quantize import load_points
from ddoq.stages.runtime import Runtime, facts
from ddoq.utils.handover import Batches, Handover
from ddoq.utils.io import link_or_copy

_SHARD_SIZE = 256  # soft labels per part: the unit of resuming, and of sharing out among processes


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write the distilled data set (see ``ddoq.data.distilled``); facts: weights' range and effective size."""
    points = load_points(inputs)
    index = facts(inputs["index"])
    class_names, num_classes = index["class_names"], len(index["class_names"])
    names = generated_files(inputs, points)
    temperature, targets = 1.0, None
    if "teacher" in inputs:
        temperature = node.identity["temperature"]
        targets = _soft_labels(node, inputs, names, points, folder / "parts", runtime)
    if runtime.ranks.rank:
        return {}
    masses, weights = _weights(node, points, num_classes)
    for name in names:
        link_or_copy(inputs["generate"] / name, folder / name)
    labels = points.labels.tolist()
    columns = {
        "file_name": names,
        "label": labels,
        "class_name": [class_names[c] for c in labels],
        "weight": weights.tolist(),
        "mass": masses.tolist(),
        "count": points.counts.tolist(),
        "index": points.index.tolist(),
        "source": points.sources.tolist(),
    }
    if index["wnids"]:
        columns["wnid"] = [index["wnids"][c] for c in labels]
    write_metadata(folder, columns, class_names, targets, temperature)
    effective = [effective_size(weights[points.labels == c]) for c in range(num_classes)]
    return {
        "num_images": len(names),
        "weight_min": weights.min().item(),
        "weight_max": weights.max().item(),
        "effective_size": sum(effective) / num_classes,
    }


def _weights(node: Node, points: ClassCodebooks, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mass of each point within its class, and its weight in the loss; ``[n]`` each."""
    handover = Handover("label", "masses of a class", "take another quantizer, or set on_small_class=error")
    masses, weights = torch.empty(len(points)), torch.empty(len(points))
    weighting = build(node.identity["weighting"])
    for label in range(num_classes):
        mine = points.labels == label
        masses[mine] = (points.counts[mine] / points.counts[mine].sum()).float()
        handover.masses(masses[mine])
        # mean 1 within the class; where classes have different numbers of points, their sums are made equal
        share = len(points) / (num_classes * int(mine.sum()))
        weights[mine] = (weighting(masses[mine].double()) * share).float()
        Handover("label", "weights of a class", "take another weighting").masses(weights[mine] / (share * mine.sum()))
    return masses, weights


def _soft_labels(
    node: Node,
    inputs: Mapping[str, Path],
    names: list[str],
    points: ClassCodebooks,
    folder: Path,
    runtime: Runtime,
) -> torch.Tensor | None:
    """Return the teacher's targets ``[n, num_classes]`` on the first process, ``None`` on the others."""
    teacher = load_teacher(node.inputs["teacher"], inputs, runtime)
    writer = LatentWriter(folder, points.labels.numpy(), _SHARD_SIZE)

    num_classes = len(facts(inputs["index"])["class_names"])
    outputs = Handover("label", "outputs of the teacher", "take another teacher")
    predict_batches(
        lambda batch: teacher(batch[1].float() / 255),
        teacher,
        PNGs([inputs["generate"] / name for name in names], runtime.dataset.image_size),
        runtime.batches_of_shards(writer),
        Batches(outputs, (num_classes,)),
        lambda batch, logits: writer.add(batch[0], (logits / node.identity["temperature"]).softmax(1)),
        title=f"label {node.title}",
        accelerator=runtime.accelerator,
    )
    runtime.ranks.gather()
    if runtime.ranks.rank:
        return None
    writer.finish()
    targets = Latents(folder, points.labels.numpy()).at(np.arange(len(points)))
    shutil.rmtree(folder)
    return targets
