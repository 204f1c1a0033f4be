"""Run a sweep: check all of it, print the plan, start what is missing, end in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ddoq.config.names import command_line
from ddoq.errors import DdoqError, StageError, together
from ddoq.job import fetch, print_data, run_job
from ddoq.pipeline.estimate import Estimate, Ledger
from ddoq.sweeps.points import Compose, SweepPoint, expand
from ddoq.sweeps.record import sweep_name, write_record
from ddoq.sweeps.waves import Wave, check_resources, jobs_of, waves
from ddoq.utils.console import console
from ddoq.utils.ranks import company
from ddoq.watch.page import PAGE, LivePage

#: Starts jobs, each given by its overrides, with the resources of a wave;
#: returns each one's error, if it had any.
Launch = Callable[[Sequence[Sequence[str]], Wave], Sequence[DdoqError | None]]


def run_sweep(
    lists: Sequence[Sequence[str]], compose: Compose, launch: Launch, launcher: Mapping[str, Any]
) -> None:
    """Run the points of a sweep.

    Args:
        lists: the overrides of every point.
        compose: makes a configuration of overrides.
        launch: starts jobs and waits for them.
        launcher: the resources that its jobs have, unless a wave says otherwise.

    Raises:
        DdoqError: a point is wrong, and nothing was started;
            or some points failed, and the others are finished.
    """
    points = expand(lists, compose)
    first = points[0].job
    run, outputs = first.run, first.paths.outputs
    if run.fetch:
        for point in points:
            fetch(point.job.config)
        return
    if company() > 1:  # every process of torchrun is here, and all have to do the same
        _raise(
            points,
            _errors(points, launch([point.overrides for point in points], Wave(run.until, {}))),
        )
        return
    name, todo = sweep_name(points), waves(first.config["sweep"], run.until)
    for wave in todo:
        check_resources(launcher, wave)
    _print_plan(name, points, todo)
    if run.plan_only:
        return
    folder = outputs / "sweeps" / name
    write_record(folder, points)
    console.print(f"[dim]ddoq watch {name}   or   {folder / PAGE}[/]", soft_wrap=True)
    with LivePage(outputs, name):
        failures = _run_waves(name, points, todo, launch)
        for point in points:
            if point.name not in failures and not point.is_reported():
                _report(point)
    console.quiet = False  # which jobs in this process may have set
    if run.until == "report":
        _write_table(points, folder, name)
    _raise(points, failures)


def _write_table(points: Sequence[SweepPoint], folder: Path, name: str) -> None:
    from ddoq.report import many, select  # with which comes pandas

    if any(select.is_run(point.folder) for point in points):
        many.write([point.folder for point in points], folder, name)


def _run_waves(
    name: str, points: list[SweepPoint], todo: list[Wave], launch: Launch
) -> dict[str, DdoqError]:
    """Start wave after wave; return the errors of the points that failed, by run name.

    Those miss the later waves.
    """
    for point in points:
        # Discarded here, once: a job would compute again what another one just has.
        for node in point.job.stale:
            point.job.store.discard(node)
    failures: dict[str, DdoqError] = {}
    for wave in todo:
        able = [point for point in points if point.name not in failures]
        chosen = jobs_of(wave, able)
        if not chosen:
            continue
        if len(todo) > 1:
            console.print(
                f"[bold]up to {wave.until}[/]: "
                f"{len(chosen)} of {len(points)} points {_resources(wave)}"
            )
        extra = [f"sweep.name={name}", f"run.until={wave.until}", "run.from=null"]
        failures |= _errors(chosen, launch([[*point.overrides, *extra] for point in chosen], wave))
        failures |= {
            point.name: _unfinished(wave)
            for point in able
            if point.name not in failures and point.missing(wave.until)
        }
    return failures


def _errors(
    points: Sequence[SweepPoint], errors: Sequence[DdoqError | None]
) -> dict[str, DdoqError]:
    return {point.name: error for point, error in zip(points, errors, strict=True) if error}


def _unfinished(wave: Wave) -> DdoqError:
    return StageError(
        f"not finished up to {wave.until}: its job, or the one that was to compute what it shares, "
        "was killed, cancelled, out of memory or over its time",
        "see .submitit/*/*_log.err beside the runs",
    )


def _report(point: SweepPoint) -> None:
    """Write the report of a run that needed no job of its own;
    the sweep's table says what it would print.
    """
    config = point.job.config
    changes = {
        "run": {**config["run"], "from": None, "quiet": True},
        "logger": {**config["logger"], "mode": "none"},
    }
    run_job(config | changes, point.folder, command_line(point.overrides))


def _raise(points: Sequence[SweepPoint], failures: Mapping[str, DdoqError]) -> None:
    """Raise one error for all points that failed."""
    failed = {str(point): failures[point.name] for point in points if point.name in failures}
    if failed:
        cause, remedy = together(failed)
        raise StageError(
            f"{len(failed)} of {len(points)} points failed: {cause}",
            f"{remedy}; what is finished stays, and the same command goes on from there",
        )


def _print_plan(name: str, points: list[SweepPoint], todo: list[Wave]) -> None:
    """Print what each point lacks, what all of them lack, and in which waves they start."""
    ledger = Ledger(points[0].job.store)
    everything = ledger.estimate(node for point in points for node in point.job.missing)
    swept = [
        dict(override.lstrip("+").partition("=")[::2] for override in point.swept)
        for point in points
    ]
    keys = list(dict.fromkeys(key for choices in swept for key in choices))
    table = Table(
        "",
        title=f"[bold]{escape(name)}[/]: to compute",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for header in _short(keys):
        table.add_column(escape(header), overflow="fold")
    for stage in everything.counts:
        table.add_column(stage, justify="right")
    table.add_column("expected")

    def add(number: str, what: Sequence[str], estimate: Estimate) -> None:
        counts = (str(estimate.counts.get(stage, "")) for stage in everything.counts)
        table.add_row(number, *what, *counts, estimate.time())

    for number, (point, values) in enumerate(zip(points, swept, strict=True), 1):
        add(
            str(number),
            [escape(values.get(key, "")) for key in keys],
            ledger.estimate(point.job.missing),
        )
    add("all", [""] * len(keys), everything)
    console.print(table)
    indexed = {point.job.experiment.nodes.index.key: point.job for point in points}
    for job in indexed.values():  # each data set once
        print_data(job)
    console.print("[dim]what points share is counted once in the last line[/]")
    for wave in todo if len(todo) > 1 else ():
        console.print(f"  wave up to {wave.until:<10} {_resources(wave)}")


def _short(keys: Sequence[str]) -> list[str]:
    """Return the last parts of dotted keys, or the keys where two would look the same."""
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return [part if last.count(part) == 1 else key for key, part in zip(keys, last, strict=True)]


def _resources(wave: Wave) -> str:
    return (
        "[dim]"
        + escape(" ".join(f"{key}={value}" for key, value in wave.resources.items()))
        + "[/]"
    )
