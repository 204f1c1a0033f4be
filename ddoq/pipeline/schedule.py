"""In which order nodes are computed, and how long so many processes take for them."""

from __future__ import annotations

import heapq
from bisect import insort
from collections import Counter, defaultdict
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


class Waiting:
    """The nodes that are left, and which of them may begin.

    While models are still to be tried, nothing of a later stage may: what does not work is refused
    before anything is computed with it.

    Args:
        nodes: in order of preference.

    Attributes:
        left: those that have not ended, by key, in that order.
    """

    def __init__(self, nodes: Iterable[Node]):
        self.left = {node.key: node for node in nodes}
        self._rank = {key: rank for rank, key in enumerate(self.left)}
        self._inputs = {key: inputs_of(node) & self.left.keys() for key, node in self.left.items()}
        self._behind: dict[str, list[str]] = defaultdict(list)
        for key, inputs in self._inputs.items():
            for upstream in inputs:
                self._behind[upstream].append(key)
        self._free = [key for key, inputs in self._inputs.items() if not inputs]
        self._untried = Counter(
            node.stage for node in self.left.values() if TABLE[node.stage].tries
        )

    def ended(self, node: Node) -> None:
        """Take note that a node is there: nobody waits for it any more."""
        del self.left[node.key]
        self._free.remove(node.key)
        if TABLE[node.stage].tries:
            self._untried[node.stage] -= 1
        for key in self._behind[node.key]:
            self._inputs[key].remove(node.key)
            if not self._inputs[key]:
                insort(self._free, key, key=self._rank.__getitem__)

    def ready(self) -> list[Node]:
        """Return the nodes whose inputs are there, in order of preference."""
        tried = [STAGES.index(stage) for stage, number in self._untried.items() if number]
        last = min(tried, default=len(STAGES))
        free = (self.left[key] for key in self._free)
        return [node for node in free if STAGES.index(node.stage) <= last]


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
    waiting, running, now = Waiting(nodes), [], 0.0
    while waiting.left:
        begun = {key for _, key, _ in running}
        able = [node for node in waiting.ready() if node.key not in begun]
        for node in able[: num_processes - len(running)]:
            heapq.heappush(running, (now + seconds(node), node.key, node))
        now, _, finished = heapq.heappop(running)
        waiting.ended(finished)
    return now
