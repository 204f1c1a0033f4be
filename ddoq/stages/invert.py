"""invert: latents to the statistics of each class at the noise level of a generator's start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import TensorDataset

from ddoq.data.indexed import labels_of
from ddoq.data.latents import StoredLatents
from ddoq.engine.memory import FittingBatches
from ddoq.engine.trainer import predict_batches
from ddoq.errors import StoreError
from ddoq.generators.statistics import Moments, best_draws
from ddoq.pipeline.graph import Node
from ddoq.quantizers.codebook import ClassCodebooks
from ddoq.stages.models import load_pretrained_generator
from ddoq.stages.runtime import Runtime, index_facts
from ddoq.utils.handover import Batches, Handover
from ddoq.utils.io import atomic_path, reading

_STATISTICS = "statistics.safetensors"  # mean and std, float32 [num_classes, *shape]


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write the mean and the standard deviation of each class's inverted latents, coordinate by
    coordinate; facts: the number of latents, and both over all classes and coordinates.

    One class is held at a time; a class is the unit of resuming.
    """
    index = index_facts(inputs["index"])
    latents = StoredLatents(inputs["encode"], labels_of(inputs["index"], "train"))
    conf = node.identity["generator"]
    path = str(inputs.get("model") or runtime.models.place(node.identity["model"], conf))
    generator = load_pretrained_generator(conf, path, None, index.space)
    network = runtime.prepare(generator.network)
    fitting = FittingBatches("invert")
    remedy = "set generator.precision=float32, or generator.inversion_scale=1"
    promised = Handover("invert", "inverted latents", remedy)

    def invert(batch) -> torch.Tensor:
        points, labels = batch
        return fitting(len(labels), lambda rows: generator.inverted(points[rows], labels[rows]))

    labels = list(range(index.num_classes))
    parts = [folder / f"class-{label:05d}.safetensors" for label in labels]
    for label in runtime.ranks.mine(labels):
        if parts[label].exists():
            continue
        moments, (_, mine) = Moments(), latents.of_class(label)
        predict_batches(
            invert,
            network,
            TensorDataset(mine, torch.full((len(mine),), label)),
            runtime.batches(list(range(len(mine)))),
            Batches(promised, latents.shape),
            lambda _, samples, moments=moments: moments.add(samples),
            title=f"invert {index.class_names[label]}",
            accelerator=runtime.accelerator,
        )
        with atomic_path(parts[label]) as temporary:
            save_file({"mean": moments.mean, "std": moments.std}, temporary)
    runtime.ranks.gather()
    if runtime.ranks.rank:
        return {}
    of_classes = [load_file(part) for part in parts]
    both = {name: torch.stack([own[name] for own in of_classes]) for name in ("mean", "std")}
    with atomic_path(folder / _STATISTICS) as temporary:
        save_file(both, temporary)
    for part in parts:
        part.unlink()
    return {"num": len(latents), **{name: part.mean().item() for name, part in both.items()}}


def draws_of(folder: Path, points: ClassCodebooks, num_sets: int, *seed: object) -> torch.Tensor:
    """Return a start for every point from the statistics of its class, ``[n, *shape]``.

    Args:
        folder: of the ``invert`` artefact.
        points: class by class.
        num_sets: see ``ddoq.generators.statistics.best_draws``.
        seed: what the randomness is made of.

    Raises:
        StoreError: the file is damaged, or of other latents.
    """
    nums = points.labels.bincount().tolist()
    means, stds = read_statistics(folder, (len(nums), *points.latents.shape[1:]))
    starts = [
        best_draws(means[label], stds[label], num, num_sets, *seed, label)
        for label, num in enumerate(nums)
    ]
    return torch.cat(starts)


def read_statistics(folder: Path, shape: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return means and standard deviations ``[num_classes, *shape]`` of an ``invert`` artefact.

    Args:
        folder: of the artefact.
        shape: that both have to be of.

    Raises:
        StoreError: the file is damaged, or of other latents.
    """
    remedy = f"remove {folder} and run again"
    handover = Handover(f"{folder}", "statistics", remedy, StoreError)
    with reading(folder / _STATISTICS, remedy, StoreError):
        held = load_file(folder / _STATISTICS)
        means, stds = (held[name].float() for name in ("mean", "std"))
        if (stds < 0).any():
            raise ValueError("there are negative deviations")
    for part in (means, stds):
        handover.shape(part.shape, shape)
        handover.finite(part)
    return means, stds
