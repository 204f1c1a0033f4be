"""evaluate: train one student on one data set and measure it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddoq.data.soft_labels import StoredLabels
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
    options: dict[str, Any] = {}
    if recipe.labels == "soft":
        options["teacher"] = load_teacher(node.inputs["teacher"], inputs, runtime)
    elif recipe.labels == "stored":
        options |= {
            "stored": StoredLabels(inputs["relabel"], tuple(data.targets.shape)),
            "views_seed": node.inputs["relabel"].identity["seed"],
        }
    _, measures = train_and_measure(
        identity, index, data, recipe, identity["split"], runtime, **options
    )
    return measures | recipe_facts(recipe, len(data.images))
