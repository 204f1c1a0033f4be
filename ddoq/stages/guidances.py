"""Guidances by a node's identity, with what the run gives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ddoq.config.build import build
from ddoq.guidances import Cells, Guidance
from ddoq.pipeline.graph import Node
from ddoq.quantizers.codebook import ClassCodebooks
from ddoq.stages.runtime import Runtime


def load_guidance(
    conf: Mapping, node: Node, inputs: Mapping[str, Path], runtime: Runtime
) -> Guidance:
    """Return a guidance of a ``generate`` node.

    Args:
        conf: of the guidance.
        node: whose identity it is from.
        inputs: folders of the node's inputs.
        runtime: how to compute.
    """
    return build(conf)


def cells_of(points: ClassCodebooks) -> list[Cells]:
    """Return what each class was quantized to, by label."""
    cells = []
    for label in points.labels.unique():
        mine = points.labels == label
        masses = points.counts[mine] / points.counts[mine].sum()
        cells.append(Cells(points.latents[mine], masses.float()))
    return cells
