"""The report of any set of runs: one table, on the terminal and as CSV, Markdown, LaTeX and a page.

A section is added by writing its function and entering it in ``SECTIONS``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ddoq.errors import DataError
from ddoq.report import figures, tables
from ddoq.report.formats import percent
from ddoq.report.groups import Group, groups_of
from ddoq.report.page import Ask, Report, Section, asked, print_tables, under_trained, write_page
from ddoq.report.sections import accuracy, comparisons, cost, glossary, published
from ddoq.report.select import Selection, read_config, read_runs, read_sweep
from ddoq.report.view import latex, markdown, table_of
from ddoq.utils.console import console
from ddoq.utils.io import read_json, write_text

#: Fields that are shown against each other unless a user names others.
PIVOTS = (("arm", "ipc"), ("student", "teacher"), ("arm", "dataset"))


@dataclass(frozen=True, kw_only=True)
class ManyRuns(Report):
    """The report of many runs.

    Attributes:
        runs: their folders.
        record: what a sweep's folder says about it; empty where they are none.
        pivots: pairs of fields to show against each other, instead of the usual ones.
    """

    runs: Sequence[Path]
    record: dict[str, Any] = field(default_factory=dict)
    pivots: Sequence[tuple[str, str]] = ()


def write(run_folders: list[Path], target: Path, title: str) -> None:
    """Print the table of some runs and write ``table.csv``, ``table.md``,
    ``table.tex`` and ``report.html``.

    Args:
        run_folders: with ``results.jsonl``; those without are named and left out.
        target: folder of the files.
        title: of the page.

    Raises:
        DataError: none of them has results.
    """
    warnings: list[str] = []
    rows = read_runs(run_folders, warnings)
    if not rows:
        raise DataError(
            f"report: no results in {len(run_folders)} runs",
            "; ".join(warnings) or "finish one of them",
        )
    selection = Selection(title=title, home=target, rows=rows, runs=run_folders, warnings=warnings)
    report(selection, target)


def report(selection: Selection, target: Path, chosen: Sequence[tuple[str, str]] = ()) -> None:
    """Print the table of a selection and write its files into ``target``.

    Args:
        selection: rows and runs.
        target: folder of the files.
        chosen: pairs of fields to show against each other, instead of the usual ones.
    """
    warn(selection.warnings)
    many = ManyRuns(
        title=selection.title,
        groups=grouped(selection),
        folder=target,
        runs=selection.runs,
        record=read_sweep(selection.home),
        pivots=chosen,
    )
    target.mkdir(parents=True, exist_ok=True)
    sections = asked(many, SECTIONS)
    filed = [view for section in asked(many, FILED) for view in section.tables]
    write_text(target / "table.csv", tables.plain(many.groups).to_csv(index=False))
    write_text(target / "table.md", f"# {selection.title}\n\n" + "\n".join(map(markdown, filed)))
    write_text(target / "table.tex", "% \\usepackage{booktabs}\n" + "\n".join(map(latex, filed)))
    students = {row.get("key") or (row["run"], n) for n, row in enumerate(selection.rows)}
    about = [f"{len(many.runs)} run{'s' * (len(many.runs) != 1)}", f"{len(students)} students"]
    warnings = [*selection.warnings, *under_trained(many.measured)]
    page = write_page(many, sections, lead(many.measured, many.split), about, warnings)
    print_tables(sections)
    console.print(f"\nreport  {page}\ntables  {target / 'table.csv'}, .md, .tex", soft_wrap=True)


def warn(warnings: Sequence[str]) -> None:
    """Say what is missing or damaged where it does not end up in a file of tables."""
    for warning in warnings:
        print(f"ddoq: warning: {warning}", file=sys.stderr)


def grouped(selection: Selection) -> list[Group]:
    """Return the groups of a selection, those of one name with how they differ."""
    folders = {run.name: run for run in selection.runs}
    return groups_of(selection.rows, lambda run: read_config(folders[run]))


def lead(groups: Sequence[Group], split: str) -> str:
    """Return the result in one sentence."""
    distilled = [group for group in groups if group["ipc"] is not None] or groups
    first, last = (
        choose(distilled, key=lambda group: group["accuracy"].mean) for choose in (min, max)
    )
    return (
        f"Top-1 on {split} from {percent(first['accuracy'])} % ({_title(first)}) "
        f"to {percent(last['accuracy'])} % ({_title(last)})."
    )


def _title(group: Group) -> str:
    ipc = "" if group["ipc"] is None else f" at ipc {group['ipc']}"
    return f"{group['name']}{ipc} on {group['dataset']}"


# --- sections ---------------------------------------------------------------------------------


def curves(report: Report) -> Section | None:
    """Accuracy against images per class."""
    drawn = figures.accuracy_curves(report.measured) if report.split == "test" else []
    if not drawn:
        return None
    return Section(
        title="Accuracy against images per class",
        text=["Mean and 95 % interval over seeds; dashed: the full data."],
        figures=drawn,
        is_wide=len(drawn) > 1,
    )


def pivots(report: ManyRuns) -> Section | None:
    """Two fields against each other."""
    groups = report.shown if report.pivots else report.of_split("test")
    views = [
        view
        for pair in report.pivots or PIVOTS
        for view in tables.pivots(groups, *pair, least=1 if report.pivots else 2)
    ]
    if not views:
        return None
    return Section(title="Against each other", views=views, is_wide=True, is_printed=True)


def validation(report: Report) -> Section | None:
    """The groups of the validation split beside those of the test split."""
    groups = report.of_split("validation")
    if report.split == "validation" or not groups:
        return None
    return Section(
        title="On the validation split",
        views=[tables.accuracy_view(groups, "validation")],
        is_wide=True,
    )


def codebooks(report: ManyRuns) -> Section | None:
    """How well points stand for latents, and W2 against K."""
    series = _measured_curves(report.runs) or _arm_curves(report.measured)
    drawn = figures.w2_figure([line for line in series if len(line.points) > 1])
    if not drawn:
        return None
    return Section(
        title="W2 against K",
        text=[
            "Of the points with their own masses to the latents of their class, "
            "over the standard deviation of the class."
        ],
        figures=[("", drawn)],
    )


def _measured_curves(runs: Sequence[Path]) -> list[figures.Series]:
    """Return W2 by K of every quantizer that a run followed, where their store still has them;
    what is missing or damaged is left out.
    """
    curves: dict[str, dict] = {}
    for run in runs:
        try:
            for step in read_json(run / "plan.json"):
                if step["stage"] == "curve" and step["key"] not in curves:
                    store = run.parent.parent / "store" / "curve"
                    facts = read_json(store / step["key"] / "manifest.json")["facts"]
                    name = f"{run.name.split('-')[0]}, {step['title']}"
                    curve = {"name": name, "arm": step["title"], "points": facts["points"]}
                    figures.curve_series(curve)  # a damaged one raises here
                    curves[step["key"]] = curve
        except (OSError, ValueError, KeyError, TypeError):
            continue
    names = [curve["name"] for curve in curves.values()]
    for key, curve in curves.items():
        if names.count(curve["name"]) > 1:
            curve["name"] += f" ({key[:6]})"
    return [s for curve in curves.values() for s in figures.curve_series(curve, ("w2_squared",))]


def _arm_curves(groups: Sequence[Group]) -> list[figures.Series]:
    """Return W2 by K of the arms' codebooks."""
    curves: dict[str, dict] = {}
    for group in groups:
        if group["ipc"] and not group["condition"]:
            name = f"{group['dataset']}, {group['name']}"
            curve = curves.setdefault(name, {"name": name, "arm": group["arm"], "points": []})
            curve["points"].append(group | {"num_centroids": group["ipc"]})
    for curve in curves.values():
        curve["points"].sort(key=lambda point: point["num_centroids"])
    return [s for curve in curves.values() for s in figures.curve_series(curve, ("w2_squared",))]


def runs(report: ManyRuns) -> Section | None:
    """The runs of a report of many, with the way to their own reports."""
    overrides = {
        point["run"]: " ".join(point.get("overrides", []))
        for point in report.record.get("points", [])
    }
    reports = {run.name: run / "report.html" for run in report.runs}
    view = table_of(
        ({"run": run.name, "overrides": overrides.get(run.name, "")} for run in report.runs),
        title="",
        num_left=2,
        links={
            name: quote(os.path.relpath(page, report.folder))
            for name, page in reports.items()
            if page.is_file()
        },
    )
    return view and Section(title="Runs", views=[view], is_wide=True)


def reproduce(report: ManyRuns) -> Section | None:
    """The command of a sweep."""
    command = report.record.get("command")
    return command and Section(title="Reproduce", folded=[("Command", command)], is_wide=True)


#: What is said, in this order.
SECTIONS: tuple[Ask, ...] = (
    *(curves, accuracy, glossary, pivots, comparisons, published, validation, codebooks, cost),
    *(runs, reproduce),
)
#: Whose tables are written as Markdown and LaTeX, too.
FILED: tuple[Ask, ...] = (accuracy, pivots, published, validation, cost)
