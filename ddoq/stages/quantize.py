"""quantize: the latents of each class to K points with masses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ddoq.data.indexed import labels_of
from ddoq.errors import StoreError
from ddoq.pipeline.graph import Node
from ddoq.quantizers.allocation import allocate, class_gains
from ddoq.quantizers.codebook import ClassCodebooks
from ddoq.stages.classes import ClassQuantizer, each_class, measures, require_codebook
from ddoq.stages.files import CODEBOOK
from ddoq.stages.runtime import Runtime, index_facts
from ddoq.utils.handover import Handover
from ddoq.utils.io import read_json, write_json
from ddoq.utils.seeding import item_generator


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write ``codebook.safetensors``; facts:
    the measures of ``ddoq.quantizers.measures``, per class and overall.
    """
    classes = ClassQuantizer(node.identity, inputs, runtime)
    budget = _budget(node, classes, folder, runtime)
    labels = list(range(classes.num_classes))
    parts = [folder / f"class-{label:05d}" for label in labels]
    mine = runtime.ranks.mine(labels)
    each_class(
        [label for label in mine if not parts[label].with_suffix(".json").exists()],
        lambda label: _quantize_class(
            classes, label, budget[label], node.identity["num_folds"], parts[label]
        ),
        f"quantize {node.title}",
        runtime,
    )
    if runtime.ranks.rank:
        return {}
    merged = ClassCodebooks.concatenate(
        [ClassCodebooks.load(part.with_suffix(".safetensors")) for part in parts]
    )
    merged.save(folder / CODEBOOK, dict(node.identity))
    per_class = [read_json(part.with_suffix(".json")) for part in parts]
    for part in parts:
        part.with_suffix(".json").unlink()
        part.with_suffix(".safetensors").unlink()
    (folder / _BUDGET).unlink(missing_ok=True)
    return {**overall(per_class), "num_points": len(merged), "per_class": per_class}


def overall(rows: list[dict]) -> dict[str, float | None]:
    """Return the measures of all classes together: means over latents;
    ``None`` where a class has none.
    """
    total = sum(row["num"] for row in rows)
    names = [name for name in rows[0] if name not in ("label", "num", "num_centroids")]
    return {
        name: None
        if any(row[name] is None for row in rows)
        else sum(row["num"] * row[name] for row in rows) / total
        for name in names
    }


def _quantize_class(
    classes: ClassQuantizer, label: int, num_centroids: int, num_folds: int, part: Path
) -> None:
    quantizer, generator = classes.quantizer(label, num_centroids)
    if quantizer.streams and classes.identity["space"]["name"] == "latents":
        positions = classes.latents.positions(label)
        codebook = quantizer.fit_stream(lambda: classes.latents.pieces(label), generator)
        pieces = classes.latents.pieces(label)
    else:
        positions, latents = classes.of_class(label)
        codebook = classes.fit(label, num_centroids, positions, latents, num_folds)
        pieces = [latents]
    require_codebook(codebook, label, num_centroids, len(positions), classes.latents.shape)
    ClassCodebooks.rows(codebook, label, positions).save(part.with_suffix(".safetensors"), {})
    write_json(
        part.with_suffix(".json"),
        {"num": len(positions), "num_centroids": num_centroids, **measures(codebook, pieces)},
    )


def load_points(inputs: Mapping[str, Path]) -> ClassCodebooks:
    """Return the points of a ``quantize`` artefact,
    if they are those of the training images in ``index``.

    Raises:
        StoreError: a point is not finite; or classes without points, points out of order, or a
            point whose training image is of another class.
    """
    points = ClassCodebooks.load(inputs["quantize"] / CODEBOOK)
    handover = Handover(
        f"{inputs['quantize']}", "points", f"remove {inputs['quantize']} and run again", StoreError
    )
    handover.finite(points.latents)
    num_classes = index_facts(inputs["index"]).num_classes
    replace(handover, items="classes with points").order(
        points.labels.unique(), torch.arange(num_classes)
    )
    handover.order(points.labels, points.labels.sort().values)
    per_class = points.labels.bincount().tolist()
    handover.order(points.index, torch.cat([torch.arange(num) for num in per_class]))
    # The last one stands for images that there are not.
    train = np.append(labels_of(inputs["index"], "train"), -1)
    behind = train[np.minimum(points.sources, len(train) - 1)]
    replace(handover, items="points, by their training images,").order(behind, points.labels)
    return points


_BUDGET = "budget.json"


def _budget(node: Node, classes: ClassQuantizer, folder: Path, runtime: Runtime) -> list[int]:
    """Return the number of points of every class."""
    ipc, labels = node.identity["ipc"], list(range(classes.num_classes))
    if node.identity["allocation"] == "equal":
        return [ipc] * classes.num_classes
    if (folder / _BUDGET).exists():  # where all processes look before one of them writes
        return read_json(folder / _BUDGET)
    mine: dict[int, np.ndarray] = {}

    def find(label: int) -> None:
        generator = item_generator(node.identity["seed"], "allocate", label)
        mine[label] = class_gains(classes.of_class(label)[1], generator)

    each_class(runtime.ranks.mine(labels), find, f"allocate {node.title}", runtime)
    gains = {label: gain for part in runtime.ranks.gather(mine) for label, gain in part.items()}
    budget = allocate([gains[label] for label in labels], ipc * classes.num_classes).tolist()
    if runtime.ranks.rank == 0:
        write_json(folder / _BUDGET, budget)
    return budget
