"""The stage graph: nodes named by content, linked by their inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ddoq.pipeline.keys import digest, settled
from ddoq.pipeline.stages import STAGES, reaches


@dataclass(frozen=True, eq=False, kw_only=True)
class Node:
    """One unit of work: a stage applied to one configuration and its inputs.

    ``identity`` holds all that can change the result and nothing else (no device, path or batch
    size); ``title`` is for people. ``required`` names facts that a manifest has to have:
    without them it is the verdict of an older ddoq that did not look, and the artefact is
    computed again under its key.
    """

    stage: str
    version: int
    identity: Mapping[str, Any]
    inputs: Mapping[str, Node] = field(default_factory=dict)
    title: str = ""
    required: tuple[str, ...] = ()

    @cached_property
    def body(self) -> dict[str, Any]:
        """What is hashed; inputs enter by key, so a change anywhere upstream changes
        every key below it.
        """
        return {
            "stage": self.stage,
            "version": self.version,
            "identity": settled(self.identity, self.stage),
            "inputs": {name: node.key for name, node in self.inputs.items()},
        }

    @cached_property
    def key(self) -> str:
        """The content key, ``sha256(stage, version, identity, input keys)``."""
        return digest(self.body)


@dataclass(frozen=True)
class Step:
    """One line of the plan.

    ``state`` is ``hit``, ``miss`` or ``idle`` (a miss that nothing needs).
    """

    node: Node
    state: str


def unique(nodes: Iterable[Node]) -> list[Node]:
    """Return the nodes with their ancestors, each key once, ordered so that inputs come first."""
    seen: dict[str, Node] = {}

    def visit(node: Node) -> None:
        if node.key not in seen:
            for upstream in node.inputs.values():
                visit(upstream)
            seen[node.key] = node

    for node in nodes:
        visit(node)
    return sorted(seen.values(), key=lambda node: STAGES.index(node.stage))


def data_key(node: Node) -> str:
    """Return the key of the images that a node was made from: that of its ``index``."""
    while node.stage != "index" and node.inputs:
        node = node.inputs.get("index") or next(iter(node.inputs.values()))
    return node.key


def downstream(nodes: Iterable[Node], stage: str) -> list[Node]:
    """Return the nodes that belong to ``stage`` or to a later one."""
    return [node for node in nodes if reaches(node.stage, stage)]
