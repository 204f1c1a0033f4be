"""The table on the terminal while it grows: a row when the last student of an arm is there."""

from __future__ import annotations

from collections import defaultdict

from rich.markup import escape

from ddoq.evaluation.statistics import summarize
from ddoq.experiment.entries import Entry
from ddoq.experiment.experiment import Experiment
from ddoq.pipeline.graph import Node
from ddoq.pipeline.store import Store
from ddoq.report.tables import interval, percent
from ddoq.utils.console import console


class GrowingTable:
    """Knows the students of every row, and which of them are there.

    Args:
        experiment: with the rows.
        store: where its students are.
    """

    def __init__(self, experiment: Experiment, store: Store):
        self._rows: dict[str, dict[str, float | None]] = defaultdict(dict)  # top-1 by key, by row
        self._of_student: dict[str, list[str]] = defaultdict(list)  # rows by key
        self._store = store
        for entry in experiment.entries:
            row, node = _name(entry), entry.evaluate
            self._of_student[node.key].append(row)
            self._rows[row][node.key] = self._top1(node) if store.has(node) else None

    def finished(self, node: Node) -> str:
        """Take a node that has been finished; print the rows that it completes.

        Returns:
            What is known so far of the first row that it belongs to; nothing for other nodes.
        """
        told = ""
        for row in self._of_student.get(node.key, ()):
            self._rows[row][node.key] = self._top1(node)
            there = [top1 for top1 in self._rows[row].values() if top1 is not None]
            summary, num = summarize(there), len(self._rows[row])
            if len(there) == num:
                students = f"{num} student{'s' if num > 1 else ''}"
                line = f"  {row:<26} {percent(summary):>11}  {interval(summary):<14} {students}"
                console.print(line, markup=False, soft_wrap=True)
            told = told or escape(f"{row} {100 * summary.mean:.1f} % ({len(there)}/{num})")
        return told

    def _top1(self, node: Node) -> float:
        return self._store.manifest(node)["facts"]["top1"]


def _name(entry: Entry) -> str:
    """Return what a row is called; other tables than the main one say what they vary."""
    return entry.arm if entry.table == "main" else f"{entry.arm} {entry.table}={entry.value}"
