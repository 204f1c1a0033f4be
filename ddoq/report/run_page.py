"""Write the run's folder: rows, plan, configuration, the page,
and the way to the distilled data.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import yaml
from rich.markup import escape

from ddoq.config.names import run_name
from ddoq.data.leaks import leak_words
from ddoq.evaluation.statistics import compare_paired
from ddoq.experiment import Experiment
from ddoq.pipeline.graph import Step
from ddoq.pipeline.plans import write_plan
from ddoq.pipeline.store import Store
from ddoq.report import origin, run_sections, sections
from ddoq.report.evidence import Evidence, RunReport
from ddoq.report.formats import interval, percent
from ddoq.report.groups import Group, by_arm, groups_of
from ddoq.report.page import Ask, asked, print_tables, under_trained, write_page
from ddoq.report.pairs import top1_by_seed
from ddoq.report.pictures import write_grid
from ddoq.report.rows import result_rows
from ddoq.report.tracked import tracked
from ddoq.tracking import Tracker
from ddoq.utils.console import console
from ddoq.utils.io import link_or_copy, temporary_path, write_jsonl, write_text

#: What is said of a run, in this order. A section is added by writing its function and entering it.
SECTIONS: tuple[Ask, ...] = (
    run_sections.pictures,
    sections.glossary,
    sections.accuracy,
    run_sections.protocol,
    sections.comparisons,
    run_sections.scores,
    sections.published,
    run_sections.choices,
    run_sections.per_class,  # folded, and beside the choices
    run_sections.contributions,
    run_sections.gallery,
    run_sections.quantization,
    run_sections.class_codebooks,
    run_sections.choices_among_draws,
    run_sections.redundancy,
    run_sections.fidelity,
    run_sections.optimisation,
    sections.cost,
    origin.stages,
    origin.reproduce,
)


def write_report(
    experiment: Experiment,
    store: Store,
    steps: list[Step],
    run_dir: Path,
    tracker: Tracker,
    command: str = "",
) -> None:
    """Write ``results.jsonl``, ``validation.jsonl``, ``config.yaml``, ``plan.json``, ``grid.png``,
    ``report.html`` and the folder ``distilled``; print the table.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    rows = result_rows(experiment, store)
    write_jsonl(run_dir / "results.jsonl", [row for row in rows if row["split"] == "test"])
    write_jsonl(run_dir / "validation.jsonl", [row for row in rows if row["split"] != "test"])
    write_text(run_dir / "config.yaml", yaml.safe_dump(experiment.config, sort_keys=False))
    write_plan(run_dir, steps)
    run = Evidence(experiment, store, steps, command)
    _publish(run.distilled, run_dir / "distilled")
    write_grid(run.pictures, run_dir / "grid.png")

    name, config = run_name(experiment.config), experiment.config
    report = RunReport(
        title=f"{config['dataset']['name']} at {config['ipc']} images per class",
        groups=groups_of([row | {"run": name} for row in rows]),
        folder=run_dir,
        run=run,
    )
    shown, warnings = asked(report, SECTIONS), under_trained(report.shown)
    about = [name, *origin.headline(run)]
    page = write_page(report, shown, lead(report), about, warnings)
    grid = {"distilled": run_dir / "grid.png"}
    tracker.log(tracked(experiment, store, rows, report.shown, run.stage_costs, grid))

    print_tables(shown)
    for warning in warnings:
        console.print(f"[yellow]{escape(warning)}[/]")
    console.print(f"[dim]data: {escape(_data(run))}[/]")
    console.print(
        f"\nreport     {page}\nresults    {run_dir / 'results.jsonl'}\n"
        f"distilled  {run_dir / 'distilled'}",
        soft_wrap=True,
        markup=False,  # a folder may be called [red]
    )


def lead(report: RunReport) -> str:
    """Return the result in one sentence."""
    arms = by_arm(report.shown, "main")
    main = arms[report.main_arm]
    beyond = [_beyond(main, arms[name]) for name in ("random", "full") if name in arms]
    top1 = percent(main["accuracy"]).removesuffix(" ± –")
    return (
        f"{main['name']} reaches {top1} % on {report.split} with "
        f"{main['num_images']:,.0f} images of {main['dataset']}{''.join(beyond)}."
    )


def _beyond(main: Group, other: Group) -> str:
    """Return what a group has over another, and whether that is more than chance."""
    ours, theirs = top1_by_seed(main), top1_by_seed(other)
    seeds = sorted(ours.keys() & theirs.keys())
    paired = compare_paired([ours[s] for s in seeds], [theirs[s] for s in seeds])
    points = f"{100 * paired.difference.mean:+.1f} points".replace("-", "−")
    name = "the full data" if other["arm"] == "full" else f"{other['name']} images"
    between = interval(paired.difference, low=-1).replace("-", "−")
    return f"; against {name} {points}{f' {between}' if paired.difference.varies else ''}"


def _data(run: Evidence) -> str:
    index = run.index
    skipped = index["num_skipped"] and f"{index['num_skipped']} unreadable images left out"
    leaks = [leak_words(leak) for leak in run.leaks if leak["of"] == "test"]
    remarks = [index["provenance"], skipped, index["unexpected_counts"], *leaks]
    return ", ".join(filter(None, remarks))


def _publish(source: Path, target: Path) -> None:
    """Make ``target`` the folder ``source`` whose files are its own: hard links, which cost no
    space and stay when the run is copied or the store is cleaned, or copies where there are none.

    It takes its name when it is whole.
    """
    aside = temporary_path(target)
    no_locks = shutil.ignore_patterns("*.lock")
    shutil.copytree(source, aside, ignore=no_locks, copy_function=_linked)
    if target.is_symlink():  # of a run before there were hard links
        target.unlink()
    elif target.is_dir():
        shutil.rmtree(target)
    with suppress(OSError):  # another process that reports the same run came first
        os.replace(aside, target)
    shutil.rmtree(aside, ignore_errors=True)


def _linked(source: str, target: str) -> None:
    link_or_copy(Path(source), Path(target))
