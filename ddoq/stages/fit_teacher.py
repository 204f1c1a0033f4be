"""fit_teacher: train the student's network on the full train split, to label distilled images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ddoq.errors import StageError
from ddoq.pipeline.graph import Node
from ddoq.stages.evaluate import full_data, new_student, student_size, train_and_measure
from ddoq.stages.runtime import Runtime, facts
from ddoq.utils.io import atomic_path

VERSION = 1
_WEIGHTS = "teacher.safetensors"


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write ``teacher.safetensors``; facts: validation accuracy.

    Raises:
        StageError: the teacher is hardly better than chance on real images of the same label space.
    """
    from safetensors.torch import save_model

    index, size = inputs["index"], student_size(node.identity, runtime)
    data = full_data(index, runtime, size)
    network, accuracies = train_and_measure(node.identity, index, data, "validation", runtime)
    chance = 1 / len(facts(index)["class_names"])
    if accuracies[-1] < 2 * chance:
        raise StageError(
            f"fit_teacher: {accuracies[-1]:.1%} on validation images, where chance is {chance:.1%}",
            "raise protocol.num_steps, or use labeler=hard",
        )
    with atomic_path(folder / _WEIGHTS) as temporary:
        save_model(network.cpu(), str(temporary))
    return {"top1_validation": accuracies[-1], "image_size": size}


def load_teacher(folder: Path, index: Path, identity: Mapping):
    """Return a finished teacher and the normalisation of its inputs."""
    from safetensors.torch import load_model

    image_size = facts(folder)["image_size"]
    known = facts(index)
    network, normalize = new_student(identity["student"], known, image_size, identity["seed"])
    load_model(network, str(folder / _WEIGHTS))
    return network, normalize
