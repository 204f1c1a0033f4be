"""distill: optimise images by the steps of a method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ddoq.config.build import build
from ddoq.data.distilled import file_names
from ddoq.data.image_set import write_image_set, write_pngs
from ddoq.data.images import with_channels
from ddoq.distillers import Distiller, Task
from ddoq.engine.distill import DistillModule, network_bytes, require_memory, step_bytes
from ddoq.engine.memory import free_memory
from ddoq.engine.trainer import even_ends, fit_steps
from ddoq.errors import DataError
from ddoq.generators.base import decoded
from ddoq.pipeline.graph import Node
from ddoq.stages.files import START
from ddoq.stages.models import load_encoder
from ddoq.stages.quantize import load_points
from ddoq.stages.runtime import Runtime, index_facts
from ddoq.stages.students import new_student, normalization
from ddoq.utils.seeding import item_seed

_NUM_PARTS = 20  # a checkpoint after each


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write the images (see ``ddoq.data.image_set``), and what they were before the first step.

    Args:
        node: its identity has ``method`` (resolved, see ``ddoq.config.methods``), ``student``,
            ``ipc``, ``normalization``, ``on_small_class`` and ``seed``.
        inputs: ``index``; of a method that starts from a codebook also ``quantize``, and
            ``encoder`` where it was fitted.
        folder: of the artefact; what an interrupted call left there is gone on from.
        runtime: how to compute.

    Returns:
        Facts: number of images that are stored, of those that students see, bytes of their
        pixels; bytes of the networks, and about how many a step needs with them; about 50 mean
        losses along the way, and the steps after which each of these parts ended.

    Raises:
        StageError: a step does not fit into memory, or the loss became NaN or infinite.
    """
    method: Distiller = build(node.identity["method"])
    task = make_task(node.identity, inputs["index"], runtime)
    if "quantize" in inputs:
        task.decoded = _decoded(node, inputs, runtime)
    method.begin(task)
    needed, networks = step_bytes(method, task), network_bytes(task)
    require_memory(needed, method.num_in_graph(task), free_memory(runtime.device))
    module, checkpoint = DistillModule(method, task), folder / "last.ckpt"
    synthetic, class_names = task.synthetic, index_facts(inputs["index"]).class_names
    if method.num_steps:
        names = file_names(synthetic.labels, synthetic.index, class_names)
        write_pngs(folder / START, task.pixels().cpu(), names)
        fit_steps(
            module,
            lambda step: method.batch(task, step),
            even_ends(method.num_steps, min(_NUM_PARTS, method.num_steps)),
            title=f"distill {node.title}",
            accelerator=runtime.accelerator,
            checkpoint=checkpoint,
        )
    task.to(runtime.device)  # Lightning leaves it on the CPU
    write_image_set(
        folder,
        task.pixels().cpu(),
        class_names,
        labels=synthetic.labels,
        index=synthetic.index,
        counts=method.counts(task),
        sources=synthetic.sources.flatten().cpu(),
        partition=method.partition,
    )
    checkpoint.unlink(missing_ok=True)
    steps, losses = module.history()
    return {
        "num_images": len(synthetic),
        "num_seen": len(synthetic) * method.partition**2,
        "num_bytes": synthetic.images.nbytes,
        "network_bytes": networks,
        "step_bytes": needed,
        "loss_steps": steps,
        "losses": losses,
    }


def _decoded(node: Node, inputs: Mapping[str, Path], runtime: Runtime) -> Tensor:
    """Return the decoded points of a codebook, ``[num_classes, K, C, H, W]`` in [0, 1]."""
    points = load_points(inputs)
    encoder = load_encoder(node.identity, inputs, runtime)
    with torch.inference_mode():
        parts = [decoded(encoder, some) for some in points.latents.split(runtime.batch_size)]
    images = with_channels(torch.cat(parts), runtime.dataset.channels)
    return ((images + 1) / 2).clone().unflatten(0, (-1, node.identity["ipc"]))


def make_task(identity: Mapping, index: Path, runtime: Runtime) -> Task:
    """Return the task of an identity (see ``run``), without synthetic images.

    Raises:
        DataError: a class has fewer images than are to be made, and ``on_small_class`` is error.
    """
    facts, (images, labels) = index_facts(index), runtime.tensors(index, "train")
    num_classes, ipc = facts.num_classes, identity["ipc"]
    smallest = int(labels.bincount(minlength=num_classes).min())
    if smallest < ipc and identity["on_small_class"] == "error":
        raise DataError(
            f"ipc: {ipc} is more than the {smallest} training images of the smallest class",
            f"set ipc to at most {smallest}, or on_small_class=duplicate",
        )
    normalize = normalization(identity["normalization"], facts)

    def make_network(*parts: object) -> nn.Module:
        seed = item_seed(identity["seed"], "network", *parts)
        side, by = images.shape[-1], identity["normalization"]
        return new_student(identity["student"], facts, by, side, seed)[0]

    return Task(
        images,
        labels,
        num_classes=num_classes,
        ipc=ipc,
        mean=normalize.mean,
        std=normalize.std,
        make_network=make_network,
        seed=identity["seed"],
    )
