"""In which order nodes are computed, and how long so many processes take for them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator

from ddoq.pipeline.graph import Node
from ddoq.pipeline.stages import STAGES, TABLE


def in_order(targets: Iterable[Node], missing: Collection[str]) -> list[Node]:
    """Return the nodes behind ``targets`` that are ``missing``, in order of preference.

    What arms share and others wait for comes first, such as fits, by stage. Then the targets one
    after another, each with what it alone still lacks, so that rows of tables finish early.

    Args:
        targets: in the order in which they are wanted.
        missing: keys of what has to be computed.
    """
    first: dict[str, int] = {}  # the first target that needs a node, by key
    nodes: dict[str, Node] = {}

    def visit(node: Node, position: int) -> None:
        if node.key in first:
            return
        first[node.key] = position
        for upstream in node.inputs.values():
            visit(upstream, position)
        if node.key in missing:
            nodes[node.key] = node

    for position, target in enumerate(targets):
        visit(target, position)
    awaited = {key for node in nodes.values() for key in inputs_of(node)}

    def preference(node: Node) -> tuple[int, int]:
        stage = TABLE[node.stage]
        # Checks of teachers are awaited by nobody, and are better failed early.
        shared = not stage.per_arm and (node.key in awaited or stage.wave == "encode")
        return -1 if shared else first[node.key], STAGES.index(node.stage)

    return sorted(nodes.values(), key=preference)


def inputs_of(node: Node) -> set[str]:
    """Return the keys of a node's inputs."""
    return {upstream.key for upstream in node.inputs.values()}


def ready(left: Collection[Node]) -> list[Node]:
    """Return those of the nodes that are left whose inputs are there, in the order given.

    While models are still to be tried, nothing of a later stage begins: what does not work is
    refused before anything is computed with it.
    """
    keys = {node.key for node in left}
    tried = [STAGES.index(node.stage) for node in left if TABLE[node.stage].tries]
    last = min(tried, default=len(STAGES))
    return [
        node
        for node in left
        if STAGES.index(node.stage) <= last and keys.isdisjoint(inputs_of(node))
    ]


def shares(nodes: Iterable[Node], idle: int) -> Iterator[tuple[Node, int]]:
    """Yield the nodes that so many idle processes begin, each with the number of its processes.

    One process computes one node. Where fewer nodes are ready than processes idle, the others
    help with those whose stage shares out its items.

    Args:
        nodes: that are ready, in order of preference.
        idle: how many processes have nothing to do.
    """
    begun = list(nodes)[:idle]
    helpers = idle - len(begun)
    for position, node in enumerate(begun):
        behind = sum(TABLE[other.stage].together for other in begun[position:])
        extra = -(-helpers // behind) if TABLE[node.stage].together else 0
        helpers -= extra
        yield node, 1 + extra


def duration_on(
    nodes: Collection[Node], seconds: Callable[[Node], float], num_processes: int
) -> float:
    """Return how long processes take for nodes, if each node takes one of them its seconds.

    Args:
        nodes: in order of preference.
        seconds: that one process takes for a node.
        num_processes: that compute at once.
    """
    if num_processes == 1:
        return sum(map(seconds, nodes))
    left, running, now = list(nodes), [], 0.0
    while left:
        keys = {key for _, key, _ in running}
        able = [node for node in ready(left) if node.key not in keys]
        for node in able[: num_processes - len(running)]:
            heapq.heappush(running, (now + seconds(node), node.key, node))
        now, _, finished = heapq.heappop(running)
        left.remove(finished)
    return now
