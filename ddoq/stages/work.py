"""Computing a node."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from ddoq.pipeline.graph import Node
from ddoq.pipeline.stages import TABLE
from ddoq.stages.runtime import Runtime
from ddoq.utils.handover import Handover
from ddoq.utils.workers import with_workers


def compute(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Run the node's stage in ``folder``; return the artefact's facts.

    Raises:
        DdoqError: the stage's own, or a number among its facts is NaN or infinite.
    """
    stage = import_module(f"ddoq.stages.{node.stage}")
    with with_workers(runtime.num_workers):
        facts = stage.run(node, inputs, folder, runtime)
    Handover(node.stage, "measures", TABLE[node.stage].remedy).facts(facts)
    return facts
