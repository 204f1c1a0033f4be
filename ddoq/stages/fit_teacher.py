"""fit_teacher: train a network on the full train split, to label distilled images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ddoq.errors import StageError
from ddoq.pipeline.graph import Node
from ddoq.stages.evaluate import new_student, recipe_facts, train_and_measure, training_data
from ddoq.stages.runtime import Runtime, facts
from ddoq.utils.io import atomic_path
from ddoq.utils.weights import loading, require_finite

VERSION = 2  # 2: protocols with rules and views
_WEIGHTS = "teacher.safetensors"


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write ``teacher.safetensors``; facts: validation accuracy, side of its images, recipe."""
    from safetensors.torch import save_model

    data, recipe = training_data(node.identity | {"ipc": None}, inputs, runtime)
    split = "validation" if sum(facts(inputs["index"])["counts"]["validation"]) else "test"
    network, measures = train_and_measure(node.identity, inputs["index"], data, recipe, split, runtime)
    require_finite(network, "the teacher", node.stage, "lower its protocol.learning_rate", StageError)
    with atomic_path(folder / _WEIGHTS) as temporary:
        save_model(network.cpu(), str(temporary))
    return {
        f"top1_{split}": measures["top1"],
        "image_size": data.images.shape[-1],
        **recipe_facts(recipe, len(data.images)),
    }


def load_fitted(node: Node, folder: Path, index: Path):
    """Return the network of a finished node as a teacher."""
    from safetensors.torch import load_model

    from ddoq.labelers import Teacher

    identity, size = node.identity, facts(folder)["image_size"]
    protocol = identity["protocol"]
    network, normalize = new_student(
        identity["student"], facts(index), protocol["normalization"], size, identity["seed"]
    )
    with loading(f"the teacher in {folder}", "teacher"):
        load_model(network, str(folder / _WEIGHTS))
    return Teacher(network, normalize.mean.flatten().tolist(), normalize.std.flatten().tolist(), size)
