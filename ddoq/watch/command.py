"""``ddoq watch``: what runs now, live on the terminal or as a page."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ddoq.utils.paths import as_folder
from ddoq.watch.overview import STATES, Overview, RunState, find
from ddoq.watch.page import page_of
from ddoq.watch.wording import accuracy, common_host, doing, duration, speed, totals

_STYLES = {
    "failed": "bold red",
    "silent": "magenta",
    "interrupted": "yellow",
    "running": "cyan",
    "waiting": "dim",
    "done": "green",
}
_AROUND = 6  # lines of a frame that are not runs
#: Columns of a terminal that is too narrow for these.
_NARROW, _WIDE_ONLY = 100, ("", "speed", "seen")

_HELP = """
One line per run:
  state    waiting, running, done, failed, interrupted; or silent: no sign of life for a minute,
           so that its process or its machine may be gone (the same command resumes it)
  done     finished artefacts, those found in the store included
  speed    items of the current progress bar per second
  left     of the current stage; "?" where nothing says so
  seen     time since the last sign of life
  top-1 %  mean of the main arm on test, once the run is done
The view ends when all runs have ended; Ctrl-C ends it without touching them.
"""


def main(arguments: list[str]) -> int:
    """Show runs until all have ended; return the exit code.

    Raises:
        DdoqError: there is nothing to show.
    """
    options = _parser().parse_args(arguments)
    read = find(options.outputs, options.name)
    try:
        if options.html:
            _keep_page(read, 0 if options.once else options.interval)
        elif options.once or not sys.stdout.isatty():
            console = _console()
            console.print(frame(read(), console.width))
        else:
            _live(read, options.interval)
    except KeyboardInterrupt:
        pass  # the runs go on
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ddoq watch",
        description="Show a sweep, a run, or whatever runs now, while it runs.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "name",
        nargs="?",
        help="a sweep or a run, by name or folder; default: the newest sweep, or what runs now",
    )
    add(
        "--outputs",
        type=as_folder,
        default=Path("outputs"),
        metavar="DIR",
        help="paths.outputs of the runs",
    )
    add(
        "--once",
        action="store_true",
        help="show it once and stop, as when the output is no terminal",
    )
    add(
        "--interval",
        type=_seconds,
        default=2.0,
        metavar="S",
        help="seconds between two looks (default: 2)",
    )
    add(
        "--html",
        action="store_true",
        help="keep a page, live.html, up to date instead, and print where it is",
    )
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 3600 seconds")
    return seconds


def _console() -> Console:
    # A file or a pipe has no width; tables only take what they need.
    return Console(
        width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 400, highlight=False
    )


def _live(read: Callable[[], Overview], interval: float) -> None:
    console = _console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            view = read()
            if view.finished:  # the last frame stays, so it may be longer than the terminal
                live.update(frame(view, console.width))
                return
            live.update(frame(view, console.width, console.height), refresh=True)
            time.sleep(interval)


def _keep_page(read: Callable[[], Overview], interval: float) -> None:
    """Write the page until all runs have ended, or once without an interval."""
    view = read()
    print(page_of(view), flush=True)
    while interval and not view.finished:
        time.sleep(interval)
        view = read()
        page_of(view)


def frame(view: Overview, width: int, height: int | None = None) -> Group:
    """Return the picture of a view for a terminal;
    with a ``height``, only the runs that fit, the urgent ones first.
    """
    errors = [line for point in view.points if point.error for line in _error(point)]
    errors = errors[: None if height is None else height // 3]
    room = len(view.points) if height is None else max(1, height - _AROUND - len(errors))
    urgent = sorted(view.points, key=lambda point: STATES.index(point.state))[:room]
    shown = [point for point in view.points if point in urgent]
    host = common_host(view)
    head = (
        _line(view.name, "bold")
        .append(f"  on {host}" if host else "")
        .append(f"  {view.command}", "dim")
    )
    hidden = len(view.points) - len(shown)
    foot = Text(totals(view) + (f" · {hidden} not shown" if hidden else ""), style="bold")
    left_out = {*(() if width >= _NARROW else _WIDE_ONLY), *(() if host is None else ("host",))}
    return Group(head, _table(shown, left_out), *errors, foot)


def _error(point: RunState) -> list[Text]:
    cause, remedy = point.error
    return [Text(f"{point.label}: {cause}", style="red"), Text(f"  -> {remedy}")]


def _table(points: list[RunState], left_out: set[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    names = [name for name in _cells(RunState(label="", folder=Path())) if name not in left_out]
    for name in names:
        right = name in ("done", "speed", "left", "seen", "top-1 %")
        table.add_column(
            name, justify="right" if right else "left", no_wrap=name not in ("run", "doing")
        )
    for point in points:
        cells = _cells(point)
        table.add_row(*(cells[name] for name in names))
    return table


def _cells(point: RunState) -> dict[str, Any]:
    """Return what the columns say about a run, by their names."""
    runs, style = point.state == "running", _STYLES[point.state]
    return {
        "run": _line(point.label),
        "state": Text(point.state, style),
        "": ProgressBar(1.0, point.share, width=12, complete_style=style, finished_style=style),
        "done": f"{point.done}/{point.total}" if point.total else "",
        "doing": _line(doing(point)),
        "speed": speed(point.rate) if runs else "",
        "left": duration(point.left) if runs else "",
        "seen": duration(point.age) if runs or point.state == "silent" else "",
        "host": Text(point.host),
        "top-1 %": accuracy(point.top1),
    }


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")
