"""What the user sees while waiting: one console, one way to show progress."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.control import Control
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeRemainingColumn,
)

# Tables are cut at 80 columns when the output is a file or a pipe; a log can be wider.
_is_wide = sys.stdout is None or not (sys.stdout.isatty() or "COLUMNS" in os.environ)
# Columns of run.log, which no table needs more of.
_LOG_WIDTH = 160
_log = logging.getLogger("ddoq")


class _LoggedConsole(Console):
    """A console whose lines go to the log, too: a run keeps what it has said in ``run.log``."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*objects, **options)
        # A live bar's controls are no words.
        is_said = objects and not any(isinstance(thing, Control) for thing in objects)
        if is_said and _log.isEnabledFor(logging.INFO):
            text = Console(file=io.StringIO(), width=_LOG_WIDTH, highlight=False)
            text.print(*objects, **options)
            _log.info("%s", text.file.getvalue().rstrip())


console = _LoggedConsole(width=120 if _is_wide else None, highlight=False)

# A nested bar (an image inside a stage) joins the bar that is already on the screen.
_live: list[Progress] = []

# Over which the speed of a bar is taken: a batch of images can take minutes.
_SPEED_SECONDS = 300


def open_bars() -> list[Task]:
    """Return the bars that are open, outermost first; any thread may ask."""
    return [task for progress in _live[:] for task in progress.tasks]


class Bar:
    """A handle on one progress bar."""

    def __init__(self, progress: Progress, task: int):
        self._progress, self._task = progress, task

    def advance(self, steps: int = 1) -> None:
        """Move the bar forward."""
        self._progress.advance(self._task, steps)

    def to(self, completed: int) -> None:
        """Move the bar to a position, e.g. when a resumed fit starts in the middle."""
        self._progress.update(self._task, completed=completed)


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Bar]:
    """Show a bar for the duration of the block; bars nest."""
    outermost = not _live
    if outermost:
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(30),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        hidden = not console.is_terminal
        _live.append(
            Progress(
                *columns,
                console=console,
                transient=True,
                disable=hidden,
                speed_estimate_period=_SPEED_SECONDS,
            )
        )
        _live[0].start()
    task = _live[0].add_task(description, total=total)
    try:
        yield Bar(_live[0], task)
    finally:
        _live[0].remove_task(task)
        if outermost:
            _live.pop().stop()


def duration(seconds: float | None) -> str:
    """Return a time with two digits that matter, or a question mark for what is not known."""
    if seconds is None:
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return (
        f"{minutes // 60} h {minutes % 60:02d}"
        if minutes < 48 * 60
        else f"{minutes / 1440:.1f} days"
    )
