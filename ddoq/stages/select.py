"""select: among several draws of every point, as many images as there are points."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ddoq.config.build import build
from ddoq.data.distilled import PNGs, file_names
from ddoq.data.image_set import ImageSet, write_table
from ddoq.data.images import to_unit
from ddoq.data.indexed import labels_of
from ddoq.data.latents import StoredLatents
from ddoq.pipeline.graph import Node
from ddoq.quantizers.codebook import codebook_from_centroids
from ddoq.selections import Candidates, Outputs
from ddoq.stages.models import load_encoder_of
from ddoq.stages.outputs import outputs_in_parts
from ddoq.stages.quantize import load_points
from ddoq.stages.runtime import Runtime, index_facts
from ddoq.utils.handover import Batches, Handover
from ddoq.utils.io import link_or_copy

_LOOKS = ("features", "logits")  # inputs: of the training images; candidates are looked at alike


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write the chosen images as ``ddoq.data.image_set`` has them, with ``draw`` and ``point`` of
    each; facts: what the selection has to say, how many of each draw were chosen, and whether
    ``masses`` are those of the ``points`` or were counted anew, in ``cells``.

    Masses stay those of the points where each point has one image. Else an image has those
    training images of its class to which it is the nearest in the features.
    """
    points, class_names = load_points(inputs), index_facts(inputs["index"]).class_names
    draws = [
        ImageSet.of_points(inputs[name], points, class_names)
        for name in inputs
        if name.partition(".")[0] == "generate"
    ]
    real = _Real(inputs)
    outputs = _outputs(node, inputs, draws, folder / "parts", runtime)
    if outputs is None:
        return {}
    conf = {name: value for name, value in node.identity["selection"].items() if name != "space"}
    candidates = Candidates(labels=points.labels, outputs=outputs)
    choice = build(conf).choose(candidates, real, node.identity["seed"])
    number, point = choice.rows // len(points), choice.rows % len(points)
    order = (point * len(draws) + number).argsort()  # points are in the order of classes
    number, point = number[order], point[order]
    labels = points.labels[point]
    Handover("select", "images", "take another selection").order(labels, points.labels)
    one_each = torch.equal(point, torch.arange(len(points)))
    counts, sources = points.counts, points.sources
    if not one_each:
        counts, sources = _cells(outputs.features[choice.rows[order]], labels, real)
    names = file_names(labels, points.index, class_names)
    for name, draw, which in zip(names, number.tolist(), point.tolist(), strict=True):
        link_or_copy(draws[draw].folder / draws[draw].names[which], folder / name)
    columns = {"labels": labels, "index": points.index, "counts": counts, "sources": sources}
    write_table(folder, names, **columns, draw=number, point=points.index[point])
    return {
        "num_images": len(points),
        "num_candidates": len(points) * len(draws),
        "masses": "points" if one_each else "cells",
        "of_draws": number.bincount(minlength=len(draws)).tolist(),
        **choice.facts,
    }


class _Real:
    """The outputs of the training images of a class, read when they are asked for."""

    def __init__(self, inputs: Mapping[str, Path]):
        labels = labels_of(inputs["index"], "train")
        self.stored = {
            name: StoredLatents(inputs[name], labels) for name in _LOOKS if name in inputs
        }

    def __call__(self, label: int) -> Outputs:
        return Outputs(**{name: part.of_class(label)[1] for name, part in self.stored.items()})

    def positions(self, label: int) -> Tensor:
        """Return the positions of the class's images in the train split, ``[R]``."""
        return torch.from_numpy(self.stored["features"].positions(label))


def _outputs(
    node: Node, inputs: Mapping[str, Path], draws: list[ImageSet], parts: Path, runtime: Runtime
) -> Outputs | None:
    """Return the outputs of all candidates, draw by draw, on the first process."""
    looks = [name for name in _LOOKS if name in inputs]
    networks = nn.ModuleList(load_encoder_of(node.inputs[name], inputs, runtime) for name in looks)
    widths = [StoredLatents(inputs[name]).shape[0] for name in looks]

    def look(pixels: Tensor) -> Tensor:
        images = to_unit(pixels)
        return torch.cat([network.encode(images) for network in networks], 1)

    promised = Handover("select", "outputs of images", networks[0].remedy)
    outputs = outputs_in_parts(
        look,
        networks,
        PNGs(
            [draw.folder / name for draw in draws for name in draw.names],
            runtime.dataset.image_size,
        ),
        torch.cat([draw.labels for draw in draws]).numpy(),
        Batches(promised, (sum(widths),)),
        parts,
        f"select {node.title}",
        runtime,
    )
    return None if outputs is None else Outputs(*outputs.split(widths, 1))


def _cells(features: Tensor, labels: Tensor, real: _Real) -> tuple[Tensor, Tensor]:
    """Return how many training images of its class each image is nearest to, and which of them is
    the nearest to it, int64 ``[n]`` each.
    """
    counts, sources = torch.zeros_like(labels), torch.zeros_like(labels)
    for label in labels.unique().tolist():
        mine = labels == label
        cells = codebook_from_centroids(real(label).features, features[mine])
        counts[mine] = cells.counts
        sources[mine] = real.positions(label)[cells.nearest]
    return counts, sources
