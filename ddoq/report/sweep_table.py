"""One table of many runs: on the terminal, and as CSV, Markdown, LaTeX and a page."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from ddoq.errors import DataError
from ddoq.report.gather import Selection, read_config, read_runs, read_sweep
from ddoq.report.groups import Group, distinct, groups_of, named_apart
from ddoq.report.published import beside
from ddoq.report.summary import PIVOTS, cost_view, main_view, pivots, record
from ddoq.report.variants import describe
from ddoq.report.view import View, latex, markdown, show
from ddoq.utils.console import console
from ddoq.utils.io import write_text


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
    report(Selection(title, target, rows, run_folders, warnings), target)


def report(selection: Selection, target: Path, chosen: Sequence[tuple[str, str]] = ()) -> None:
    """Print the table of a selection and write its files into ``target``.

    Args:
        selection: rows and runs.
        target: folder of the files.
        chosen: pairs of fields to show against each other, instead of the usual ones.
    """
    warn(selection.warnings)
    groups = grouped(selection)
    shown = distinct(groups)
    on_test = [group for group in shown if group["split"] == "test"]
    found = [
        main_view(shown, "test"),
        *(view for pair in chosen for view in pivots(shown, *pair, least=1)),
        *(view for pair in (() if chosen else PIVOTS) for view in pivots(on_test, *pair)),
        beside(on_test),
        main_view(shown, "validation"),
        cost_view(on_test or shown),
    ]
    views = [view for view in found if view]
    target.mkdir(parents=True, exist_ok=True)
    write_text(target / "table.csv", _csv(groups))
    write_text(target / "table.md", f"# {selection.title}\n\n" + "\n".join(map(markdown, views)))
    write_text(target / "table.tex", "% \\usepackage{booktabs}\n" + "\n".join(map(latex, views)))
    write_text(target / "report.html", _page(selection, views, on_test))
    for view in views[:-1] if not on_test else [view for view in found[:-2] if view]:
        show(view, console)
    console.print(
        f"\nreport  {target / 'report.html'}\ntables  {target / 'table.csv'}, .md, .tex",
        soft_wrap=True,
    )


def warn(warnings: Sequence[str]) -> None:
    """Say what is missing or damaged where it does not end up in a file of tables."""
    for warning in warnings:
        print(f"ddoq: warning: {warning}", file=sys.stderr)


def grouped(selection: Selection) -> list[Group]:
    """Return the groups of a selection, those of one name with how they differ."""
    folders = {run.name: run for run in selection.runs}
    return named_apart(
        groups_of(selection.rows),
        lambda same: describe(same, lambda run: read_config(folders[run])),
    )


def _csv(groups: Sequence[Group]) -> str:
    records = [record(group) for group in groups]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _page(selection: Selection, views: list[View], groups: Sequence[Group]) -> str:
    from ddoq.report import sweep_figures
    from ddoq.utils.pages import templates

    sweep = read_sweep(selection.home)
    context = {
        "title": selection.title,
        "runs": [run.name for run in selection.runs],
        "num_students": len(
            {row.get("key") or (row["run"], number) for number, row in enumerate(selection.rows)}
        ),
        "command": sweep.get("command"),
        "overrides": {
            point["run"]: point.get("overrides", []) for point in sweep.get("points", [])
        },
        "warnings": selection.warnings,
        "views": views,
        "accuracy_figures": sweep_figures.accuracy_figures(groups),
        "w2_figure": sweep_figures.w2_figure(selection.runs, groups),
    }
    return templates(Path(__file__).parent).get_template("table.html").render(context)
