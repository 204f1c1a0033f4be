"""Computing a node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

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
    with with_workers(runtime.num_workers), _one_thread():
        facts = stage.run(node, inputs, folder, runtime)
    Handover(node.stage, "measures", TABLE[node.stage].remedy).facts(facts)
    return facts


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in the block on one thread, whatever the surroundings say: the last digit of a sum
    depends on the number of threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
