"""fit_teacher: train a network on the full train split, to label distilled images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_model

from ddoq.errors import StageError
from ddoq.pipeline.graph import Node
from ddoq.stages.files import TEACHER
from ddoq.stages.runtime import Runtime, index_facts
from ddoq.stages.students import recipe_facts, train_and_measure, training_data
from ddoq.utils.io import atomic_path
from ddoq.utils.state_dicts import require_finite


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write ``teacher.safetensors``; facts: validation accuracy, side of its images, recipe."""
    data, recipe = training_data(node.identity | {"ipc": None}, inputs, runtime)
    split = "validation" if sum(index_facts(inputs["index"]).counts["validation"]) else "test"
    network, measures = train_and_measure(
        node.identity, inputs["index"], data, recipe, split, runtime
    )
    require_finite(
        network, "the teacher", node.stage, "lower its protocol.learning_rate", StageError
    )
    with atomic_path(folder / TEACHER) as temporary:
        save_model(network.cpu(), str(temporary))
    return {
        f"top1_{split}": measures["top1"],
        "image_size": data.images.shape[-1],
        **recipe_facts(recipe, len(data.images)),
    }
