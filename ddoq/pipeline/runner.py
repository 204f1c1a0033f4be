"""Compute what is missing, in order, and say what happened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ddoq.pipeline import status
from ddoq.pipeline.graph import Node, unique
from ddoq.pipeline.plans import plan
from ddoq.pipeline.stages import TABLE
from ddoq.pipeline.store import Store
from ddoq.utils.console import Bar, console, progress_bar
from ddoq.utils.ranks import Alone

#: Computes a node in a folder, given the folders of its inputs; returns the artefact's facts.
Compute = Callable[[Node, Mapping[str, Path], Path], dict]


def execute(
    targets: Iterable[Node], store: Store, compute: Compute, ranks: Alone | None = None
) -> list[Node]:
    """Compute whatever ``targets`` lack, stage by stage; return the nodes that had to be computed.

    Args:
        targets: nodes that have to be finished.
        store: where artefacts go.
        compute: see ``Compute``.
        ranks: the processes that compute this run together.
    """
    ranks, targets, computed = ranks or Alone(), list(targets), []
    following, steps = status.current(), plan(targets, store)
    # Finished by other processes since the run began.
    following.finished(step.node for step in steps if step.state != "miss")
    missing = ranks.share({step.node.key for step in steps if step.state == "miss"})
    by_stage: dict[str, list[Node]] = {}
    for node in unique(targets):
        if node.key in missing:
            by_stage.setdefault(node.stage, []).append(node)
    for stage, nodes in by_stage.items():
        together = TABLE[stage].together and ranks.size > 1
        mine = nodes if together else ranks.mine(nodes)
        following.stage(stage, len(mine))
        with progress_bar(stage, len(nodes)) as bar:
            if together:
                done = _ensure_together(mine, store, compute, ranks, bar)
            else:
                done = _ensure_all(mine, store, compute, bar)
        keys = {key for part in ranks.gather(done) for key in part}
        following.finished(nodes)
        done = [node for node in nodes if node.key in keys]
        seconds = sum(store.manifest(node)["cost"]["seconds"] for node in done)
        others = f", {len(nodes) - len(done)} by other runs" if len(done) < len(nodes) else ""
        console.print(
            f"[green]✓[/] {stage:<14} {len(done):>3} computed in {seconds:6.1f} s{others}",
            soft_wrap=True,
        )
        computed += done
    return computed


def _ensure_all(nodes: list[Node], store: Store, compute: Compute, bar: Bar) -> list[str]:
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
            computed = store.ensure(node, _bound(compute, node, store), wait and not busy)
            if computed is None:
                busy.append(node)
                continue
            if computed:
                done.append(node.key)
            else:
                status.current().passed(node)
            bar.advance()
        wait, nodes = len(busy) == len(nodes), busy
    return done


def _ensure_together(
    nodes: list[Node], store: Store, compute: Compute, ranks: Alone, bar: Bar
) -> list[str]:
    """Let all processes compute each node; return the keys of those that this one,
    the first, committed.
    """
    done = []
    for node in nodes:
        run = _bound(compute, node, store)

        def lead(folder: Path, run: Callable[[Path], dict] = run) -> dict:
            ranks.share(True)
            return run(folder)

        if ranks.rank:
            if ranks.share():
                run(store.path(node))
        elif store.ensure(node, lead):
            done.append(node.key)
        else:
            ranks.share(False)
            status.current().passed(node)
        bar.advance()
    return done


def _bound(compute: Compute, node: Node, store: Store) -> Callable[[Path], dict]:
    """Return the computation of one node, to be given a folder."""

    def run(folder: Path) -> dict:
        with status.current().node(node):
            inputs = {name: store.intact(upstream) for name, upstream in node.inputs.items()}
            return compute(node, inputs, folder)

    return run
