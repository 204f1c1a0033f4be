"""A process that computes nodes for another one, which tells it which: see ``Crew``."""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ddoq.errors import DdoqError
from ddoq.pipeline.graph import Node
from ddoq.pipeline.here import Compute, ensure
from ddoq.pipeline.store import Store
from ddoq.utils.console import become_remote
from ddoq.utils.ranks import Alone
from ddoq.utils.stop import SIGNALS, Stopped, stoppable

#: Makes the computation, given the processes that share out the items of a node.
MakeCompute = Callable[[Alone], Compute]


@dataclass(frozen=True)
class Assignment:
    """A node to be computed by ``size`` processes, this one number ``rank`` of them; ``wait``: for
    another run that computes it.
    """

    node: Node
    rank: int
    size: int
    wait: bool


class _Gone(BaseException):
    """Whoever tells this process what to do is no longer there."""


class FarError(Exception):
    """The traceback of an error in another process, as its cause."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Mates(Alone):
    """The processes that compute a node together; they meet at the process that tells them to.

    Args:
        line: to that process.
    """

    def __init__(self, line: Line):
        self._line = line

    def take(self, task: Assignment) -> None:
        """Be the process of a task from now on."""
        self.rank, self.size = task.rank, task.size

    def gather(self, value: Any = None) -> list:
        """See ``Alone.gather``."""
        if self.size == 1:
            return [value]
        self._line.say("meet", value)
        return self._line.hear()


class Line:
    """What a worker says and hears; any thread may say something."""

    def __init__(self, connection: Connection):
        self._connection, self._lock = connection, threading.Lock()

    def say(self, what: str, value: Any = None) -> None:
        """Send a message."""
        with self._lock, _while_there():
            self._connection.send((what, value))

    def hear(self) -> Any:
        """Wait for a message."""
        with _while_there():
            return self._connection.recv()

    def put_nowait(self, record: logging.LogRecord) -> None:
        """Send a line of the log; see ``logging.handlers.QueueHandler``."""
        self.say("log", record)


@contextmanager
def _while_there() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        raise _Gone from error


def work(connection: Connection, store: Store, make_compute: MakeCompute) -> None:
    """Compute nodes until there are no more, or a signal says so."""
    # These may reach the whole group of processes; the one that started this one ends it.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    line = Line(connection)
    become_remote(line.say)
    logging.getLogger().handlers[:] = [logging.handlers.QueueHandler(line)]
    mates = Mates(line)
    compute = make_compute(mates)
    try:
        with stoppable(signal.SIGTERM):
            while True:
                task = line.hear()
                mates.take(task)
                line.say(*_outcome(task, store, compute, mates))
    except (Stopped, _Gone):
        return


def _outcome(task: Assignment, store: Store, compute: Compute, mates: Mates) -> tuple[str, Any]:
    try:
        return "ended", ensure(task.node, store, compute, mates, task.wait)
    except Exception as error:
        return "failed", (_portable(error), traceback.format_exc())


def _portable(error: Exception) -> Exception:
    """Return an error that another process can read: its text, where a library made its class."""
    if isinstance(error, DdoqError) or (
        isinstance(error, OSError) and type(error).__module__ == "builtins"
    ):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
