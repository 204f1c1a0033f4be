"""``ddoq store``: look at what is stored, check it,
and remove what is damaged or no longer needed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from ddoq.errors import StoreError, did_you_mean
from ddoq.pipeline import care
from ddoq.pipeline.lock import is_held, lock_path
from ddoq.pipeline.plans import keys_by_run
from ddoq.pipeline.stages import STAGES
from ddoq.pipeline.store import DIGESTS
from ddoq.pipeline.survey import Artefact, artefact_folders, strays, survey
from ddoq.utils.console import console
from ddoq.utils.disk import disk_error
from ddoq.utils.paths import as_folder

_MOST_SHOWN = 200
_EPILOG = """\
An artefact is a folder DIR/store/<stage>/<key>; it is finished if and only if it has a manifest.
What is unfinished was left by a killed run, and the same command resumes in it. Runs are the
folders DIR/runs/*: an artefact that is listed in the plan.json of any of them is never collected.
To give up a run, remove its folder, then `ddoq store gc`.

  ddoq store ls                      the stages: how many artefacts, bytes, seconds
  ddoq store ls encode --runs        the artefacts of a stage, and which runs need them
  ddoq store verify                  exit code 1 if a file is damaged, missing or strange
  ddoq store repair --dry-run        what `repair` would remove;
                                     the next run that needs it computes it again
  ddoq store gc --keep 7 --dry-run   what no run needs and is older than a week
"""


def main(arguments: list[str]) -> int:
    """Run ``ddoq store <arguments>``; return the exit code.

    Raises:
        DdoqError: with cause and remedy.
    """
    asked = _parser().parse_args(arguments)
    if not (asked.outputs / "store").is_dir():
        raise StoreError(
            f"there is no store in {asked.outputs}",
            "give the folder that `paths.outputs` names: --outputs",
        )
    try:
        return asked.run(asked)
    except OSError as error:
        readable = disk_error(error, asked.outputs)
        if readable is None:
            raise
        raise readable from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ddoq store",
        description="Look at the store of artefacts, check it, "
        "and remove what is damaged or no longer needed.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, run, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--outputs", type=as_folder, default="outputs", metavar="DIR", help="default: outputs"
        )
        command.set_defaults(run=run)
        return command

    listing = add("ls", _list, "list the stages, or the artefacts of one")
    listing.add_argument("stage", nargs="?", metavar="STAGE", help=f"one of: {' '.join(STAGES)}")
    listing.add_argument("--runs", action="store_true", help="say which runs need them")
    listing.add_argument(
        "--all", action="store_true", help=f"not only the {_MOST_SHOWN} latest artefacts"
    )
    add("du", _usage, "bytes by stage and by run")
    for name, run, text in (
        (
            "verify",
            _verify,
            "read every file and compare it with its manifest; exit code 1 where one differs",
        ),
        (
            "repair",
            _repair,
            "verify, and remove what is damaged, so that the next run computes it again",
        ),
    ):
        command = add(name, run, text)
        command.add_argument(
            "names",
            nargs="*",
            metavar="KEY|STAGE",
            help="only these (the first digits of a key do)",
        )
    command.add_argument(
        "--dry-run", action="store_true", help="say what would be removed, and remove nothing"
    )
    collecting = add("gc", _collect, "remove artefacts and leftovers that no run needs")
    collecting.add_argument(
        "--dry-run", action="store_true", help="say what would be removed, and remove nothing"
    )
    collecting.add_argument(
        "--keep",
        type=days,
        default=1.0,
        metavar="DAYS",
        help="only what is older than this (default: 1)",
    )
    return parser


def days(text: str) -> float:
    """Read a number of days. (argparse names this function where the text is no number.)"""
    if not 0 <= float(text) < float("inf"):
        raise argparse.ArgumentTypeError("give a number of days, 0 or more")
    return float(text)


# --- ls, du -----------------------------------------------------------------------------------


def _list(asked: argparse.Namespace) -> int:
    if asked.stage not in (None, *STAGES):
        raise StoreError(f"there is no stage '{asked.stage}'", did_you_mean(asked.stage, STAGES))
    runs = _runs_by_key(asked.outputs) if asked.runs else None
    artefacts = survey(asked.outputs / "store", [asked.stage] if asked.stage else STAGES)
    if not asked.stage:
        _print_stages(artefacts, runs)
        return 0
    latest = sorted(artefacts, key=lambda artefact: artefact.time, reverse=True)
    shown = latest if asked.all else latest[:_MOST_SHOWN]
    table = _table("key", "title", ">bytes", ">time", ">age", *(["runs"] if asked.runs else []))
    for artefact in shown:
        used = (
            [escape(", ".join(sorted(runs.get(artefact.key, []))) or "none")] if asked.runs else []
        )
        took = rough_time(artefact.seconds) if artefact.finished else _unfinished(artefact)
        age = rough_time(time.time() - artefact.time)
        table.add_row(
            artefact.key, escape(artefact.title), decimal(artefact.num_bytes), took, age, *used
        )
    console.print(table)
    if len(shown) < len(latest):
        console.print(
            f"[dim]the {len(shown)} latest of {len(latest):,}; --all shows all of them[/]"
        )
    return 0


def _print_stages(artefacts: list[Artefact], runs: dict[str, list[str]] | None) -> None:
    table = _table(
        "stage",
        ">artefacts",
        ">unfinished",
        ">bytes",
        ">time",
        *([">without a run"] if runs is not None else []),
    )
    for name, some in [*_by_stage(artefacts).items(), ("[bold]all[/]", artefacts)]:
        finished = sum(artefact.finished for artefact in some)
        unused = (
            [f"{sum(artefact.key not in runs for artefact in some):,}"] if runs is not None else []
        )
        table.add_row(
            name,
            f"{finished:,}",
            f"{len(some) - finished:,}" if finished < len(some) else "",
            decimal(sum(artefact.num_bytes for artefact in some)),
            rough_time(sum(artefact.seconds for artefact in some)),
            *unused,
        )
    console.print(table)


def _usage(asked: argparse.Namespace) -> int:
    artefacts, keys = survey(asked.outputs / "store"), keys_by_run(asked.outputs)
    runs, size = _invert(keys), {artefact.key: artefact.num_bytes for artefact in artefacts}
    stages = _table("stage", ">artefacts", ">bytes")
    table = _table("run", ">artefacts", ">bytes", ">only this run's")
    for stage, some in _by_stage(artefacts).items():
        stages.add_row(
            stage, f"{len(some):,}", decimal(sum(artefact.num_bytes for artefact in some))
        )
    if tables := list((asked.outputs / "store" / DIGESTS).glob("*.digests")):
        stages.add_row(DIGESTS, "", decimal(sum(table.stat().st_size for table in tables)))
    for run, wanted in keys.items():
        there = [key for key in wanted if key in size]
        own = sum(size[key] for key in there if len(runs[key]) == 1)
        table.add_row(
            escape(run), f"{len(there):,}", decimal(sum(size[key] for key in there)), decimal(own)
        )
    shared = sum(num_bytes for key, num_bytes in size.items() if len(runs.get(key, ())) > 1)
    loose = sum(num_bytes for key, num_bytes in size.items() if key not in runs)
    console.print(stages)
    console.print()
    console.print(table)
    console.print(
        f"\n{decimal(sum(size.values()))} in all, each artefact counted once: "
        f"{decimal(shared)} belong to several runs and {decimal(loose)} to none (ddoq store gc).\n"
        "[dim]Images that label shares with generate (one file, two names) count in both.[/]",
        soft_wrap=True,
    )
    return 0


def _runs_by_key(outputs: Path) -> dict[str, list[str]]:
    return _invert(keys_by_run(outputs))


def _invert(keys: dict[str, set[str]]) -> dict[str, list[str]]:
    runs: dict[str, list[str]] = defaultdict(list)
    for run, wanted in keys.items():
        for key in wanted:
            runs[key].append(run)
    return dict(runs)


def _by_stage(artefacts: Iterable[Artefact]) -> dict[str, list[Artefact]]:
    stages: dict[str, list[Artefact]] = defaultdict(list)
    for artefact in artefacts:
        stages[artefact.stage].append(artefact)
    return stages


def _unfinished(artefact: Artefact) -> str:
    return "[cyan]computing[/]" if is_held(lock_path(artefact.folder)) else "[yellow]unfinished[/]"


def _table(*columns: str) -> Table:
    """Return a table without lines; columns whose name begins with ``>`` are numbers."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        number = column.startswith(">")
        table.add_column(
            column.removeprefix(">"), justify="right" if number else "left", overflow="fold"
        )
    return table


def rough_time(seconds: float) -> str:
    """Return seconds for people: ``3.2 s``, ``12 min``, ``5.1 h``, ``3 d``."""
    for unit, length, most, digits in (("s", 1, 100, 1), ("min", 60, 100, 0), ("h", 3600, 48, 1)):
        if seconds < most * length:
            return f"{max(seconds, 0) / length:.{digits}f} {unit}"
    return f"{seconds / care.DAY:,.0f} d"


# --- verify, repair, gc -----------------------------------------------------------------------

_HINTS = {
    "unfinished": "left by a killed run; the same command resumes in it",
    "computing": "a process is at work on it",
}


def _verify(asked: argparse.Namespace) -> int:
    findings, strange = _look(asked)
    wrong = sum(finding.state in ("damaged", "stray") for finding in findings)
    if wrong:
        console.print(
            "[dim]`ddoq store repair` removes what is damaged and what is not an artefact's own[/]"
        )
    return 1 if wrong or strange else 0


def _look(asked: argparse.Namespace) -> tuple[list[care.Finding], list[Path]]:
    """Verify, and print all that is not in order."""
    root, start = asked.outputs / "store", time.perf_counter()
    findings = care.verify(artefact_folders(root, asked.names))
    strange = [] if asked.names else strays(root)
    for finding in findings:
        if finding.state != "intact":
            _say(finding.state, finding.folder, _HINTS.get(finding.state, ""))
            for line in finding.lines:
                print(f"            {line}")
    for path in strange:
        _say("stray", path, "not the store's; move it elsewhere")
    counts = {state: sum(finding.state == state for finding in findings) for state in care.STATES}
    parts = [f"{count:,} {state}" for state, count in counts.items() if count]
    console.print(
        f"{', '.join(parts) or 'nothing is stored'} ({rough_time(time.perf_counter() - start)})",
        soft_wrap=True,
    )
    return findings, strange


def _repair(asked: argparse.Namespace) -> int:
    findings, _ = _look(asked)
    if asked.dry_run:
        wrong = [finding for finding in findings if finding.state in ("damaged", "stray")]
        console.print(f"{len(wrong)} would be repaired")
        return 0
    for finding, done in care.repair(findings):
        _say(done, finding.folder)
    return 0


def _collect(asked: argparse.Namespace) -> int:
    candidates = care.unneeded(asked.outputs, asked.keep)
    leftovers = care.half_removed(asked.outputs / "store")
    gone = candidates
    if not asked.dry_run:
        gone = list(care.collect(asked.outputs, candidates))
        for path in leftovers:
            shutil.rmtree(path)
    for artefact in gone:
        _say(
            "would go" if asked.dry_run else "removed",
            artefact.folder,
            f"{artefact.title}  {decimal(artefact.num_bytes)}".strip(),
        )
    unfinished = sum(not artefact.finished for artefact in gone)
    console.print(
        f"{'would remove' if asked.dry_run else 'removed'} {len(gone) - unfinished:,} artefacts "
        f"and {unfinished + len(leftovers):,} leftovers: "
        f"{decimal(sum(artefact.num_bytes for artefact in gone))}",
        soft_wrap=True,
    )
    if idle := [run for run, keys in keys_by_run(asked.outputs).items() if not keys]:
        console.print(
            f"[dim]without a plan, so they keep nothing: {escape(', '.join(idle))}[/]",
            soft_wrap=True,
        )
    return 0


def _say(what: str, folder: Path, more: str = "") -> None:
    print(f"{what:<11} {folder.parent.name}/{folder.name}  {more}".rstrip())
    sys.stdout.flush()
