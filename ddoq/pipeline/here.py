"""Computing nodes in this process, alone or in the team that torchrun or srun started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ddoq.pipeline import status
from ddoq.pipeline.graph import Node
from ddoq.pipeline.stages import TABLE
from ddoq.pipeline.store import Store
from ddoq.utils.cores import forbid_fork
from ddoq.utils.ranks import Alone

#: Computes a node in a folder, given the folders of its inputs; returns the artefact's facts.
Compute = Callable[[Node, Mapping[str, Path], Path], dict]


class Here:
    """The pool of processes that is this one; see ``ddoq.pipeline.runner.Pool``.

    The processes of a team all schedule alike, stage by stage: they share out the nodes of a
    stage, or the items of each node, and meet after it.

    Args:
        store: where artefacts go.
        compute: see ``Compute``.
        ranks: the team.
    """

    running = ()

    def __init__(self, store: Store, compute: Compute, ranks: Alone | None = None):
        self.store, self.compute, self.ranks = store, compute, ranks or Alone()
        self.size = self.ranks.size

    def agree(self, missing: set[str]) -> set[str]:
        """See ``Pool.agree``."""
        return self.ranks.share(missing)

    def run(self, nodes: Sequence[Node], wait: bool) -> list[tuple[Node, bool | None]]:
        """See ``Pool.run``."""
        forbid_fork()
        if self.ranks.size == 1:
            return [(nodes[0], self._ensure(nodes[0], Alone(), wait))]
        nodes = [node for node in nodes if node.stage == nodes[0].stage]
        if TABLE[nodes[0].stage].together:
            done = [node.key for node in nodes if self._ensure(node, self.ranks, wait=True)]
        else:
            done = self._ensure_all(self.ranks.mine(nodes))
        keys = {key for part in self.ranks.gather(done) for key in part}
        return [(node, node.key in keys) for node in nodes]

    def _ensure_all(self, nodes: list[Node]) -> list[str]:
        """Return the keys of the nodes that this process computed.

        What another job is computing right now is left for later:
        jobs that need the same nodes share them out.
        """
        done: list[str] = []
        wait = False
        while nodes:
            busy = []
            for node in nodes:
                # Nothing else is left to do: wait for the first one, then look at the others again.
                computed = self._ensure(node, Alone(), wait and not busy)
                if computed is None:
                    busy.append(node)
                elif computed:
                    done.append(node.key)
            wait, nodes = len(busy) == len(nodes), busy
        return done

    def _ensure(self, node: Node, ranks: Alone, wait: bool) -> bool | None:
        def compute(*arguments) -> dict:
            with status.current().node(node):
                return self.compute(*arguments)

        return ensure(node, self.store, compute, ranks, wait)


def ensure(node: Node, store: Store, compute: Compute, ranks: Alone, wait: bool) -> bool | None:
    """Make sure that a node's artefact exists; return whether it had to be computed.

    Args:
        node: whose inputs are there.
        store: where artefacts go.
        compute: see ``Compute``.
        ranks: the processes that all call this and share out the node's items;
            the first one commits, and knows what is returned.
        wait: for another run that computes the node; else ``None`` is returned.
    """

    def run(folder: Path) -> dict:
        inputs = {name: store.intact(upstream) for name, upstream in node.inputs.items()}
        return compute(node, inputs, folder)

    def lead(folder: Path) -> dict:
        ranks.share(True)
        return run(folder)

    if ranks.rank:
        if ranks.share():
            run(store.path(node))
        return False
    computed = store.ensure(node, lead, wait)
    if not computed:
        ranks.share(False)
    return computed
