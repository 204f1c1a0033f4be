"""The stages: short glue from configuration to objects to artefact, one file each.

A stage module has a ``VERSION``, to be raised whenever the same configuration would give another result, and
``run(node, inputs, folder, runtime)``, which fills ``folder`` from the folders of the inputs and returns the
artefact's facts as plain JSON. What an interrupted call left in ``folder`` is there again in the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from ddoq.pipeline.graph import Node
from ddoq.stages.runtime import Runtime
from ddoq.utils.workers import with_workers


def compute(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Run the node's stage; only then is the stage's module, and torch with it, imported."""
    with with_workers(runtime.num_workers):
        return import_module(f"ddoq.stages.{node.stage}").run(node, inputs, folder, runtime)
