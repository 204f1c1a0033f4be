"""Plan which nodes are hits, run the misses in order, and say what happened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ddoq.pipeline.graph import Node, unique
from ddoq.pipeline.store import Store
from ddoq.utils.console import console, progress_bar
from ddoq.utils.ranks import Alone

#: Computes a node in a folder, given the folders of its inputs; returns the artefact's facts.
Compute = Callable[[Node, Mapping[str, Path], Path], dict]


@dataclass(frozen=True)
class Step:
    """One line of the plan. ``state`` is ``hit``, ``miss`` or ``idle`` (a miss that nothing needs)."""

    node: Node
    state: str


def plan(targets: Iterable[Node], store: Store, stale: Iterable[Node] = ()) -> list[Step]:
    """Return every node behind ``targets`` with its state, inputs first.

    A finished target does not ask for its inputs: an artefact stays usable when what it was made from is gone.
    ``stale`` nodes count as missing: they are about to be computed again.
    """
    targets = list(targets)
    needed: set[str] = set()
    finished = {node.key for node in unique(targets) if store.has(node)} - {node.key for node in stale}

    def need(node: Node) -> None:
        if node.key not in needed and node.key not in finished:
            needed.add(node.key)
            for upstream in node.inputs.values():
                need(upstream)

    for target in targets:
        need(target)

    def state(node: Node) -> str:
        if node.key in needed:
            return "miss"
        return "hit" if node.key in finished else "idle"

    return [Step(node, state(node)) for node in unique(targets)]


#: Stages whose items are shared out among processes; of the others, each node is computed by one process.
TOGETHER = ("encode", "generate", "label", "relabel")


def execute(targets: Iterable[Node], store: Store, compute: Compute, ranks: Alone | None = None) -> list[Node]:
    """Compute whatever ``targets`` lack, stage by stage; return the nodes that had to be computed.

    Args:
        targets: nodes that have to be finished.
        store: where artefacts go.
        compute: see ``Compute``.
        ranks: the processes that compute this run together.
    """
    ranks, targets, computed = ranks or Alone(), list(targets), []
    missing = ranks.share({step.node.key for step in plan(targets, store) if step.state == "miss"})
    by_stage: dict[str, list[Node]] = {}
    for node in unique(targets):
        if node.key in missing:
            by_stage.setdefault(node.stage, []).append(node)
    for stage, nodes in by_stage.items():
        together, done = stage in TOGETHER, []
        with progress_bar(stage, len(nodes)) as bar:
            for node in nodes if together else ranks.mine(nodes):
                if _ensure(node, store, lambda folder, n=node: compute(n, _inputs(n, store), folder), ranks, together):
                    done.append(node.key)
                bar.advance()
        keys = {key for part in ranks.gather(done) for key in part}
        done = [node for node in nodes if node.key in keys]
        seconds = sum(store.manifest(node)["cost"]["seconds"] for node in done)
        console.print(f"[green]✓[/] {stage:<14} {len(done):>3} computed in {seconds:6.1f} s", soft_wrap=True)
        computed += done
    return computed


def _inputs(node: Node, store: Store) -> dict[str, Path]:
    """Return the folders of a node's inputs, which nothing has damaged since they were finished."""
    return {name: store.intact(upstream) for name, upstream in node.inputs.items()}


def _ensure(node: Node, store: Store, compute: Callable[[Path], dict], ranks: Alone, together: bool) -> bool:
    """Return whether this process computed the node; of several that compute together, the first commits."""
    if not together:
        return store.ensure(node, compute)
    if ranks.rank:
        if ranks.share():
            compute(store.path(node))
        return False

    def lead(folder: Path) -> dict:
        ranks.share(True)
        return compute(folder)

    done = store.ensure(node, lead)
    if not done:
        ranks.share(False)
    return done
