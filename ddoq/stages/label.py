"""label: give every image its weight, and with a teacher its label;
the result is the distilled data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ddoq.config.build import build
from ddoq.data.distilled import write_metadata
from ddoq.data.floats import as_floats
from ddoq.data.image_set import ImageSet
from ddoq.pipeline.graph import Node
from ddoq.quantizers.measures import effective_size
from ddoq.stages.images import image_set
from ddoq.stages.models import load_teacher
from ddoq.stages.outputs import outputs_in_parts
from ddoq.stages.runtime import Runtime, index_facts
from ddoq.utils.handover import Batches, Handover
from ddoq.utils.io import link_or_copy


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write the distilled data set (see ``ddoq.data.distilled``);
    facts: weights' range and effective size.
    """
    images, index = image_set(inputs), index_facts(inputs["index"])
    class_names, num_classes = index.class_names, index.num_classes
    temperature, targets = 1.0, None
    if "teacher" in inputs:
        temperature = node.identity["temperature"]
        targets = _soft_labels(node, inputs, images, folder / "parts", runtime)
    if runtime.ranks.rank:
        return {}
    masses, weights = _weights(node, images, num_classes)
    for name in images.files:
        link_or_copy(images.folder / name, folder / name)
    labels = images.labels.tolist()
    columns = {
        "file_name": list(images.names),
        "label": labels,
        "class_name": [class_names[c] for c in labels],
        "weight": weights.tolist(),
        "mass": masses.tolist(),
        "count": images.counts.tolist(),
        "index": images.index.tolist(),
        "source": images.sources.tolist(),
    }
    if any(index.space.wnids):
        columns["wnid"] = [index.space.wnids[c] for c in labels]
    write_metadata(folder, columns, class_names, targets, temperature)
    effective = [effective_size(weights[images.labels == c]) for c in range(num_classes)]
    return {
        "num_images": len(images),
        "weight_min": weights.min().item(),
        "weight_max": weights.max().item(),
        "effective_size": sum(effective) / num_classes,
    }


def _weights(node: Node, images: ImageSet, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mass of each image within its class, and its weight in the loss; ``[n]`` each."""
    handover = Handover(
        "label", "masses of a class", "take another quantizer, or set on_small_class=error"
    )
    masses, weights = torch.empty(len(images)), torch.empty(len(images))
    weighting = build(node.identity["weighting"])
    for label in range(num_classes):
        mine = images.labels == label
        masses[mine] = (images.counts[mine] / images.counts[mine].sum()).float()
        handover.masses(masses[mine])
        # mean 1 within the class; where classes have different numbers of images,
        # their sums are made equal
        share = len(images) / (num_classes * int(mine.sum()))
        weights[mine] = (weighting(masses[mine].double()) * share).float()
        Handover("label", "weights of a class", "take another weighting").masses(
            weights[mine] / (share * mine.sum())
        )
    return masses, weights


def _soft_labels(
    node: Node,
    inputs: Mapping[str, Path],
    images: ImageSet,
    folder: Path,
    runtime: Runtime,
) -> torch.Tensor | None:
    """Return the teacher's targets for all that students see, ``[n, num_classes]``, on the first
    process, ``None`` on the others.
    """
    teacher = load_teacher(node.inputs["teacher"], inputs, runtime)
    num_classes = index_facts(inputs["index"]).num_classes
    outputs = Handover("label", "outputs of the teacher", "take another teacher")
    logits = outputs_in_parts(
        lambda pixels: teacher(as_floats(pixels)),
        teacher,
        images.items(runtime.dataset.image_size),
        images.labels_of_pixels.numpy(),
        Batches(outputs, (num_classes,)),
        folder,
        f"label {node.title}",
        runtime,
    )
    return None if logits is None else (logits / node.identity["temperature"]).softmax(1)
