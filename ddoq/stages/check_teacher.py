"""check_teacher: what a teacher is worth on real images, before anything is trained by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ddoq.pipeline.graph import Node
from ddoq.stages.runtime import Runtime, facts
from ddoq.stages.teachers import load_teacher

VERSION = 1
_NUM_IMAGES = 2000


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write nothing but facts: accuracy on validation images, or on training images where there are none.

    Raises:
        StageError: the teacher's outputs are not numbers, or it hardly knows the classes, or knows them in another
            order.
    """
    import numpy as np
    import torch

    from ddoq.engine.trainer import predict_batches
    from ddoq.labelers import examine
    from ddoq.utils.handover import Batches, Handover

    known = facts(inputs["index"])
    split = "validation" if sum(known["counts"]["validation"]) else "train"
    images = runtime.images(inputs["index"], split)
    chosen = np.unique(np.linspace(0, len(images) - 1, _NUM_IMAGES).astype(int)).tolist()
    remedy = "replace the weights in teacher.path, or take another teacher"
    outputs = Handover(f"teacher: {node.title}", "outputs", remedy)
    teacher, logits = load_teacher(node, inputs, runtime), []
    predict_batches(
        lambda batch: teacher(batch[1].float() / 255),
        teacher,
        images,
        runtime.batches(chosen),
        Batches(outputs),
        lambda batch, found: logits.append(found.float().cpu()),
        title="check teacher",
        accelerator=runtime.accelerator,
    )
    labels = torch.from_numpy(images.labels[chosen])
    return examine(torch.cat(logits), labels, node.title, known["class_names"]) | {"split": split}
