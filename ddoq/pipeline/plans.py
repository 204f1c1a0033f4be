"""Plans: which nodes are there and which are missing;
and ``plan.json``, which artefacts a run stands on.

What no ``plan.json`` lists, nobody needs (``ddoq store gc``).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ddoq.errors import StoreError
from ddoq.pipeline.graph import Node, Step, unique
from ddoq.pipeline.status import STATUS
from ddoq.pipeline.store import Store
from ddoq.utils.io import read_json, write_json

PLAN = "plan.json"
#: What there is in a run's folder before its plan.
_BEFORE_A_PLAN = {".hydra", "run.log", STATUS}


def plan(targets: Iterable[Node], store: Store, stale: Iterable[Node] = ()) -> list[Step]:
    """Return every node behind ``targets`` with its state, inputs first.

    A finished target does not ask for its inputs: an artefact stays usable when what it was made
    from is gone. But what is outdated is computed again wherever it stands: what was made from it
    may be wrong. ``stale`` nodes count as missing: they are about to be computed again.
    """
    targets = list(targets)
    nodes, needed = unique(targets), set()
    finished = {node.key for node in nodes if store.has(node)} - {node.key for node in stale}

    def need(node: Node) -> None:
        if node.key not in needed and node.key not in finished:
            needed.add(node.key)
            for upstream in node.inputs.values():
                need(upstream)

    for node in [*targets, *filter(store.is_outdated, nodes)]:
        need(node)

    def state(node: Node) -> str:
        if node.key in needed:
            return "miss"
        return "hit" if node.key in finished else "idle"

    return [Step(node, state(node)) for node in nodes]


def write_plan(run_dir: Path, steps: Iterable[Step], *, add: bool = False) -> None:
    """Write the plan of a run; ``add``: to what an earlier plan lists,
    which a shorter run must not disown.

    An earlier plan that cannot be read is left alone then:
    nothing is removed until a whole run has replaced it.
    """
    rows = [
        {
            "stage": step.node.stage,
            "title": step.node.title,
            "key": step.node.key,
            "state": step.state,
        }
        for step in steps
    ]
    if add:
        new = {row["key"] for row in rows}
        try:
            rows += [row for row in _rows(run_dir) if row["key"] not in new]
        except StoreError:
            return
    write_json(run_dir / PLAN, rows)


def remove_unplanned(run_dir: Path) -> None:
    """Remove a run's folder if it says no more than that a run was asked for: it was only looked
    at, or refused before anything was planned.
    """
    with suppress(OSError):
        names = {path.name for path in run_dir.iterdir()}
        if names <= _BEFORE_A_PLAN:
            shutil.rmtree(run_dir)


def keys_by_run(outputs: Path) -> dict[str, set[str]]:
    """Return the keys that each run refers to, inputs of inputs included;
    runs without a plan have an empty set.

    Raises:
        StoreError: a plan cannot be read, or there is no folder of runs:
            then nobody knows what is in use.
    """
    runs = outputs / "runs"
    try:
        with os.scandir(runs) as entries:
            folders = sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except OSError as error:
        raise StoreError(
            f"{runs} cannot be read ({error.strerror}), so nothing says which artefacts are in use",
            "give the folder that holds both, store and runs: --outputs DIR",
        ) from error
    return {folder.name: {row["key"] for row in _rows(folder)} for folder in folders}


def _rows(run_dir: Path) -> list[dict]:
    path = run_dir / PLAN
    try:
        rows = read_json(path)
        if not all(isinstance(row["key"], str) for row in rows):
            raise ValueError("no key")
        return rows
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"{path} cannot be read, so nothing says which artefacts this run needs",
            f"run the command of {run_dir.name} again, which writes it anew, or remove that folder",
        ) from error
