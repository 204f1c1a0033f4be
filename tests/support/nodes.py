"""Nodes of a graph that no experiment made, for tests of what runs, stores and shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddoq.pipeline.graph import Node


def bare_node(
    stage: str, identity: Mapping[str, Any], inputs: Mapping[str, Node] | None = None, title=""
) -> Node:
    """Return version 1 of a node that requires no facts."""
    return Node(stage=stage, version=1, identity=identity, inputs=inputs or {}, title=title)
