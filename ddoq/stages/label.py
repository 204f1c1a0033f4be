"""label: give every image its weight and its target; the result is the distilled data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ddoq.pipeline.graph import Node
from ddoq.stages.quantize import CODEBOOK
from ddoq.stages.runtime import Runtime, build, facts
from ddoq.utils.io import link_or_copy

VERSION = 1


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write the distilled data set (see ``ddoq.data.distilled``); facts: weights' range and effective size."""
    import torch

    from ddoq.data.distilled import file_names, read_png, write_metadata
    from ddoq.quantizers.codebook import ClassCodebooks
    from ddoq.quantizers.measures import effective_size

    points = ClassCodebooks.load(inputs["quantize"] / CODEBOOK)
    index = facts(inputs["index"])
    class_names, num_classes = index["class_names"], len(index["class_names"])
    labels = points.labels.tolist()
    names = file_names(points.labels, points.index, class_names)
    for name in names:
        link_or_copy(inputs["generate"] / name, folder / name)

    masses, weights = torch.empty(len(points)), torch.empty(len(points))
    weighting = build(node.identity["weighting"])
    for label in range(num_classes):
        mine = points.labels == label
        masses[mine] = (points.counts[mine] / points.counts[mine].sum()).float()
        # mean 1 within the class; where classes have different numbers of points, their sums are made equal
        share = len(points) / (num_classes * int(mine.sum()))
        weights[mine] = (weighting(masses[mine].double()) * share).float()

    labeler = _labeler(node, inputs)
    targets = None
    if labeler.needs_teacher:
        targets = labeler(torch.stack([read_png(folder / name) for name in names]), points.labels, num_classes)
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
    write_metadata(folder, columns, class_names, targets, labeler.temperature)
    effective = [effective_size(weights[points.labels == c]) for c in range(num_classes)]
    return {
        "num_images": len(names),
        "weight_min": weights.min().item(),
        "weight_max": weights.max().item(),
        "effective_size": sum(effective) / num_classes,
    }


def _labeler(node: Node, inputs: Mapping[str, Path]):
    conf = node.identity["labeler"]
    if "teacher" not in inputs:
        return build(conf)
    from ddoq.stages.fit_teacher import load_teacher

    network, normalize = load_teacher(inputs["teacher"], inputs["index"], node.inputs["teacher"].identity)
    return build(conf, network=network, normalize=normalize)
