"""evaluate: train one student on one data set and measure it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddoq.data.distilled import TrainingSet
from ddoq.data.soft_labels import StoredLabels
from ddoq.evaluation.protocol import Protocol
from ddoq.pipeline.graph import Node
from ddoq.stages.models import load_teacher
from ddoq.stages.runtime import Runtime
from ddoq.stages.students import recipe_facts, train_and_measure, training_data


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write nothing but facts: what ``train_student`` returns,
    and the recipe after the protocol's rules.
    """
    identity, index = node.identity, inputs["index"]
    data, recipe = training_data(identity, inputs, runtime)
    options = label_options(node, inputs, data, recipe, runtime)
    _, measures = train_and_measure(
        identity, index, data, recipe, identity["split"], runtime, **options
    )
    return measures | recipe_facts(recipe, len(data.images))


def label_options(
    node: Node,
    inputs: Mapping[str, Path],
    data: TrainingSet,
    recipe: Protocol,
    runtime: Runtime,
) -> dict[str, Any]:
    """Return what ``train_student`` takes where a teacher labels what students see."""
    if recipe.labels == "soft":
        return {"teacher": load_teacher(node.inputs["teacher"], inputs, runtime)}
    if recipe.labels == "stored":
        return {
            "stored": StoredLabels(inputs["relabel"], tuple(data.targets.shape)),
            "views_seed": node.inputs["relabel"].identity["seed"],
        }
    return {}
