"""The table on the terminal while it grows: a row when the last student of an arm is there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich.markup import escape

from ddoq.evaluation.statistics import summarize
from ddoq.experiment.entries import Entry
from ddoq.experiment.experiment import Experiment
from ddoq.pipeline.estimate import expected
from ddoq.pipeline.graph import Node
from ddoq.pipeline.plans import plan
from ddoq.pipeline.schedule import in_order
from ddoq.pipeline.store import Store
from ddoq.report.formats import interval, percent
from ddoq.utils.console import console


class GrowingTable:
    """Knows the students of every row, and which of them are there.

    Args:
        experiment: with the rows.
        store: where its students are.
        num_processes: that compute at once.
        is_timed: whether it was said how long the run will take; else that is said once the first
            student has shown it.
    """

    def __init__(self, experiment: Experiment, store: Store, *, num_processes: int, is_timed: bool):
        self._rows: dict[str, dict[str, float | None]] = defaultdict(dict)  # top-1 by key, by row
        self._of_student: dict[str, list[str]] = defaultdict(list)  # rows by key
        self._store, self._num_processes, self._is_timed = store, num_processes, is_timed
        for entry in experiment.entries:
            row, node = _name(entry), entry.evaluate
            self._of_student[node.key].append(row)
            self._rows[row][node.key] = self._top1(node) if store.has(node) else None

    def finished(self, node: Node, left: Sequence[Node]) -> str:
        """Take a node that has been finished; print the rows that it completes.

        Returns:
            What is known so far of the first row that it belongs to; nothing for other nodes.
        """
        rows = self._of_student.get(node.key, ())
        for row in rows:
            self._rows[row][node.key] = self._top1(node)
        told = [self._so_far(row) for row in rows]
        if rows and left and not self._is_timed:
            self._is_timed = True
            time = expected(left, self._store, self._num_processes).time()
            console.print(f"  left: {time}", soft_wrap=True)
        return told[0] if told else ""

    def _so_far(self, row: str) -> str:
        """Print a row if its students are all there; return what is known of it."""
        there = [top1 for top1 in self._rows[row].values() if top1 is not None]
        summary, num = summarize(there), len(self._rows[row])
        if len(there) == num:
            students = f"{num} student{'s' if num > 1 else ''}"
            line = f"  {row:<26} {percent(summary):>11} %  {interval(summary):<14} {students}"
            console.print(line, markup=False, soft_wrap=True)
        return escape(f"{row} {100 * summary.mean:.1f} % ({len(there)}/{num})")

    def _top1(self, node: Node) -> float:
        return self._store.manifest(node)["facts"]["top1"]


def _name(entry: Entry) -> str:
    """Return what a row is called; other tables than the main one say what they vary."""
    return entry.arm if entry.table == "main" else f"{entry.arm} {entry.table}={entry.value}"


def announced(
    experiment: Experiment, store: Store, targets: Sequence[Node], num_processes: int
) -> GrowingTable:
    """Say what a run has to compute, and how long that takes where runs before it tell; return the
    table that it fills.

    Args:
        experiment: with the rows.
        store: where artefacts are, and how long others took.
        targets: nodes that have to be there in the end.
        num_processes: that compute at once.
    """
    missing = [step.node.key for step in plan(targets, store) if step.state == "miss"]
    estimate = expected(in_order(targets, missing), store, num_processes)
    if estimate.counts:
        processes = f" in {num_processes} processes" if num_processes > 1 else ""
        untold = "the first student will tell how long" if "evaluate" in estimate.counts else ""
        when = estimate.time() if estimate.seconds else untold or estimate.time()
        console.print(f"  to compute: {len(missing)} artefacts{processes}, {when}", soft_wrap=True)
    is_timed = not estimate.num_unknown
    return GrowingTable(experiment, store, num_processes=num_processes, is_timed=is_timed)
