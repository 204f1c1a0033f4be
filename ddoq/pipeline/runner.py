"""Compute what is missing, in order, and say what happened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from ddoq.pipeline import status
from ddoq.pipeline.graph import Node
from ddoq.pipeline.here import Compute, Here
from ddoq.pipeline.plans import plan
from ddoq.pipeline.schedule import Waiting, in_order
from ddoq.pipeline.store import Store
from ddoq.utils.console import console, progress_bar

#: Told of every node that is finished, and which ones are left;
#: returns what the progress bar is to say.
Tell = Callable[[Node, Sequence[Node]], str]


class Pool(Protocol):
    """Processes that compute nodes: this one (``Here``), or several (``Crew``)."""

    size: int  # number of processes
    running: Collection[str]  # keys of the nodes that are being computed

    def agree(self, missing: set[str]) -> set[str]:
        """Return the keys that are to be computed, the same in all processes that schedule."""

    def run(self, nodes: Sequence[Node], wait: bool) -> list[tuple[Node, bool | None]]:
        """Begin as many of the nodes as there are processes idle, the first ones first; return
        those that have ended meanwhile, at least one.

        Args:
            nodes: whose inputs are there and that are not being computed.
            wait: for another run that computes the first node.

        Returns:
            Each with whether it had to be computed; ``None``: another run is computing it.
        """


def execute(
    targets: Iterable[Node],
    store: Store,
    compute: Compute,
    pool: Pool | None = None,
    tell: Tell = lambda node, left: "",
) -> list[Node]:
    """Compute whatever ``targets`` lack; return the nodes that had to be computed.

    A node begins as soon as its inputs are there; ``ddoq.pipeline.schedule`` says which goes first.
    The first failure ends it; what is finished stays.

    Args:
        targets: nodes that have to be finished.
        store: where artefacts go.
        compute: see ``Compute``.
        pool: the processes that compute; ``None`` for this one.
        tell: see ``Tell``.
    """
    pool, targets = pool or Here(store, compute), list(targets)
    following, steps = status.current(), plan(targets, store)
    # Finished by other processes since the run began.
    following.finished(step.node for step in steps if step.state != "miss")
    missing = pool.agree({step.node.key for step in steps if step.state == "miss"})
    nodes = in_order(targets, missing)
    following.ahead(nodes)
    waiting, stages, told = Waiting(nodes), _Stages(nodes, store), ""
    elsewhere: set[str] = set()  # keys that other runs are computing
    with progress_bar("", len(nodes)) as bar:
        while waiting.left:
            able = [node for node in waiting.ready() if node.key not in pool.running]
            fresh = [node for node in able if node.key not in elsewhere]
            # Nothing else is left to do: wait for the first one, then look at the others again.
            wait = not fresh and not pool.running
            if fresh:
                bar.say("  ".join(filter(None, [told, f"{fresh[0].stage} {fresh[0].title}"])))
            for node, computed in pool.run(able[:1] if wait else fresh, wait):
                if computed is None:
                    elsewhere.add(node.key)
                    continue
                elsewhere.clear()
                waiting.ended(node)
                following.finished([node])
                told = tell(node, list(waiting.left.values())) or told
                stages.finished(node, computed)
                bar.advance()
    return stages.computed


class _Stages:
    """Says of every stage when the last of its nodes is finished.

    Args:
        nodes: that are to be computed.
        store: knows what they cost.
    """

    def __init__(self, nodes: Iterable[Node], store: Store):
        self.store, self.computed = store, []
        self._left: dict[str, set[str]] = defaultdict(set)
        for node in nodes:
            self._left[node.stage].add(node.key)
        self._totals = {stage: len(keys) for stage, keys in self._left.items()}

    def finished(self, node: Node, computed: bool) -> None:
        """Count a node that is finished; ``computed``: by this run."""
        if computed:
            self.computed.append(node)
        self._left[node.stage].remove(node.key)
        if self._left[node.stage]:
            return
        mine = [done for done in self.computed if done.stage == node.stage]
        seconds = sum(self.store.manifest(done)["cost"]["seconds"] for done in mine)
        others = self._totals[node.stage] - len(mine)
        console.print(
            f"[green]✓[/] {node.stage:<14} {len(mine):>3} computed in {seconds:6.1f} s"
            f"{f', {others} by other runs' if others else ''}",
            soft_wrap=True,
        )
