"""What the user sees while waiting: one console, one way to show progress."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
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


class _Screen(Console):
    """The terminal, or in a process without one the way to it.

    What it says goes to the log, too: a run keeps it in ``run.log``. ``relay``: where what is
    printed, and how far the innermost bar is, goes instead.
    """

    relay: Callable[[str, Any], None] | None = None

    def print(self, *objects: Any, **options: Any) -> None:
        """See ``rich.console.Console``."""
        if self.relay is not None:
            self.relay("print", (objects, options))
            return
        super().print(*objects, **options)
        # A live bar's controls are no words.
        is_said = objects and not any(isinstance(thing, Control) for thing in objects)
        if is_said and _log.isEnabledFor(logging.INFO):
            text = Console(file=io.StringIO(), width=_LOG_WIDTH, highlight=False)
            text.print(*objects, **options)
            _log.info("%s", text.file.getvalue().rstrip())


console = _Screen(width=120 if _is_wide else None, highlight=False)

# A nested bar (an image inside a stage) joins the bar that is already on the screen.
_live: list[Progress] = []

# How often a process without a terminal says how far it is, in seconds.
_RELAY_SECONDS = 0.1
_relayed_at = 0.0

# Over which the speed of a bar is taken: a batch of images can take minutes.
_SPEED_SECONDS = 300


def open_bars() -> list[Task]:
    """Return the bars that are open, outermost first; any thread may ask."""
    return [task for progress in _live[:] for task in progress.tasks]


def become_remote(relay: Callable[[str, Any], None]) -> None:
    """Make this process one without a terminal, whose ``relay`` says everything elsewhere."""
    _live.clear()  # what a fork has of the bars of the process that it comes from
    console.relay = relay


class Bar:
    """A handle on one progress bar."""

    def __init__(self, progress: Progress, task: int):
        self._progress, self._task = progress, task

    def advance(self, steps: int = 1) -> None:
        """Move the bar forward."""
        self._progress.advance(self._task, steps)
        _relay()

    def to(self, completed: int) -> None:
        """Move the bar to a position, e.g. when a resumed fit starts in the middle."""
        self._progress.update(self._task, completed=completed)
        _relay()

    def say(self, description: str) -> None:
        """Write something else beside the bar."""
        self._progress.update(self._task, description=description)


class FarBar:
    """The innermost bar of another process, shown here inside the bar that is open.

    Args:
        title: of what it computes.
    """

    def __init__(self, title: str):
        self._title, self._task = title, None

    def show(self, bar: tuple[str, float, float] | None) -> None:
        """Show what that process says: description, items so far and in all;
        ``None`` for no bar.
        """
        tasks = self.tasks()
        if tasks and (bar is None or tasks[0].description != bar[0]):
            _live[0].remove_task(self._task)
            self._task = None
        if bar is None or not _live:
            return
        description, completed, total = bar
        if self._task is None:
            of = "" if self._title in description else f"{self._title}: "
            self._task = _live[0].add_task(description, total=total, of=of)
        _live[0].update(self._task, completed=completed)

    def tasks(self) -> list[Task]:
        """Return the bar, if it is open."""
        return [task for task in open_bars() if task.id == self._task]


def _relay(now: bool = False) -> None:
    """Tell the process that has the terminal how far the innermost bar is."""
    global _relayed_at
    if console.relay is None or not (now or time.monotonic() - _relayed_at > _RELAY_SECONDS):
        return
    _relayed_at = time.monotonic()
    bars = [(bar.description, bar.completed, bar.total) for bar in open_bars()]
    console.relay("bar", bars[-1] if bars else None)


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Bar]:
    """Show a bar for the duration of the block; bars nest."""
    outermost = not _live
    if outermost:
        columns = (
            TextColumn("  {task.fields[of]}{task.description}"),
            BarColumn(30),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        hidden = not console.is_terminal or console.relay is not None
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
    task = _live[0].add_task(description, total=total, of="")
    _relay(now=True)
    try:
        yield Bar(_live[0], task)
    finally:
        _live[0].remove_task(task)
        if outermost:
            _live.pop().stop()
        _relay(now=True)


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
