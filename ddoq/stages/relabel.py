"""relabel: a teacher's logits of every view that students will see, to disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from ddoq.data.soft_labels import BYTES_PER_LOGIT, ViewWriter, view_path
from ddoq.engine.student import ViewMaker
from ddoq.engine.trainer import Steps, predict
from ddoq.errors import StageError
from ddoq.evaluation.views import Views
from ddoq.pipeline.graph import Node
from ddoq.stages.images import image_set
from ddoq.stages.models import load_teacher
from ddoq.stages.runtime import Runtime, index_facts
from ddoq.stages.students import normalization, resolved
from ddoq.utils.console import console
from ddoq.utils.handover import Batches, Handover


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write one file of logits per epoch; facts: views, bytes.

    Raises:
        StageError: the disk has no room for them, or a logit is not a number.
    """
    index = index_facts(inputs["index"])
    num_classes = index.num_classes
    conf = node.identity
    recipe = resolved(
        {"protocol": conf["protocol"], "student": {"name": conf["student"]}, "ipc": conf["ipc"]},
        index,
    )
    images = image_set(inputs).pixels(recipe.image_size or runtime.dataset.image_size)
    num_images = len(images)
    views = Views(recipe, num_images, images.shape[-1], conf["seed"])
    num_bytes = views.num_epochs * num_images * num_classes * BYTES_PER_LOGIT
    _announce(folder, views.num_epochs, num_images, num_classes, num_bytes)
    epochs = [
        e
        for e in runtime.ranks.mine(list(range(views.num_epochs)))
        if not view_path(folder, e).exists()
    ]
    steps = sorted({step for epoch in epochs for step in views.steps_of(epoch)})
    seen = {
        epoch: sum(int((views.places(s)[1] == epoch).sum()) for s in views.steps_of(epoch))
        for epoch in epochs
    }
    writer = ViewWriter(folder, seen, num_images)
    maker = ViewMaker(images, recipe, normalization(recipe.normalization, index))
    teacher = load_teacher(node.inputs["teacher"], inputs, runtime)

    def make_batch(number: int) -> dict:
        rows, epoch = views.places(steps[number])
        return {"rows": rows, "epochs": epoch, "draws": views.draws(steps[number])}

    outputs = Handover(
        "relabel",
        "outputs of the teacher, in float16,",
        "take another teacher, or protocol.labels=soft",
    )
    predict(
        lambda batch: teacher(maker(batch)).half(),
        torch.nn.ModuleList([maker, teacher]),
        Steps(make_batch, 0, len(steps)),
        Batches(outputs, (num_classes,)),
        lambda batch, logits: writer.add(batch["rows"], batch["epochs"], logits),
        title=f"relabel {node.title}",
        accelerator=runtime.accelerator,
    )
    runtime.ranks.gather()
    return {"num_views": views.num_epochs * num_images, "logit_bytes": num_bytes}


def _announce(
    folder: Path, num_epochs: int, num_images: int, num_classes: int, num_bytes: int
) -> None:
    """Print how much is going to be written; refuse where the disk has no room."""
    there = sum(file.stat().st_size for file in folder.glob("view-*.npy"))
    console.print(
        f"  soft labels: {num_epochs} views "
        f"× {num_images:,} images × {num_classes:,} classes × 2 bytes = {num_bytes / 1e6:.3g} MB",
        soft_wrap=True,
    )
    if num_bytes - there > shutil.disk_usage(folder).free:
        raise StageError(
            f"relabel: {num_bytes / 1e9:.1f} GB of soft labels do not fit on the disk of {folder}",
            "use protocol.labels=soft, which stores none, or another paths.outputs",
        )
