"""What a run is doing right now, as ``status.json`` in its folder,
for ``ddoq watch`` and for whoever reads JSON.

The run only changes a few attributes. A thread writes them: at most once a second, and every five
seconds even if nothing has changed, so that ``updated`` tells a dead process from a slow one. No
disk is ever in the run's way.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddoq.errors import DdoqError
from ddoq.pipeline.graph import Node, Step
from ddoq.utils.console import open_bars
from ddoq.utils.disk import disk_error
from ddoq.utils.io import write_json

if TYPE_CHECKING:
    from rich.progress import Task

#: Files that say what runs: of a run, and of a sweep with its runs.
STATUS, SWEEP = "status.json", "sweep.json"
_TICK, _BEAT = 1.0, 5.0  # seconds


#: Returns the progress bars of a node, outermost first.
Bars = Callable[[], "list[Task]"]


class Status:
    """The state of a run: ``planned``, ``ahead``, ``node`` (or ``begun`` and ``ended``, where other
    processes compute), ``finished`` and ``waiting`` tell it what happens.
    """

    def __init__(self):
        self._started = time.time()
        self._stages: dict[str, dict[str, int]] = {}
        self._missing: set[str] = set()  # keys
        self._stage = self._title = self._waiting = self._until = None
        # By stage; ``seconds``: of this run's, for the nodes that are done.
        self._nodes: dict[str, dict[str, float]] = defaultdict(
            lambda: {"total": 0, "done": 0, "seconds": 0.0}
        )
        self._running: dict[str, tuple[Node, Bars]] = {}  # by key, in the order of their beginning

    def planned(self, steps: Iterable[Step], until: str) -> None:
        """Take the plan up to the stage ``until``; what nothing needs is not counted."""
        stages: dict[str, dict[str, int]] = {}
        missing = set()
        for step in steps:
            if step.state == "idle":
                continue
            count = stages.setdefault(step.node.stage, {"total": 0, "done": 0, "hit": 0})
            hit = step.state == "hit"
            count["total"] += 1
            count["done"] += hit
            count["hit"] += hit
            if not hit:
                missing.add(step.node.key)
        self._stages, self._missing, self._until = stages, missing, until

    def ahead(self, nodes: Iterable[Node]) -> None:
        """Count nodes that are about to be computed."""
        for node in nodes:
            self._nodes[node.stage]["total"] += 1

    def stage(self, name: str) -> None:
        """Begin a stage that has no nodes."""
        self._stage, self._title = name, None

    @contextmanager
    def node(self, node: Node) -> Iterator[None]:
        """Compute a node in the block. Where the block fails, the node stays the current one."""
        num_outer, start = len(open_bars()), time.monotonic()
        self.begun(node, lambda: open_bars()[num_outer:])
        yield
        self.ended(node, time.monotonic() - start)

    def begun(self, node: Node, bars: Bars) -> None:
        """Take note that a node is being computed, which is the current one from now on."""
        self._running[node.key] = node, bars
        self._stage, self._title = node.stage, node.title

    def ended(self, node: Node, seconds: float) -> None:
        """Take note that a node has been computed; the latest of the others is the current one.

        Args:
            node: that has ended.
            seconds: of the run's that it took; where several were computed at once, its part.
        """
        self._running.pop(node.key, None)
        self._title = None
        self._nodes[node.stage]["done"] += 1
        self._nodes[node.stage]["seconds"] += seconds
        self.finished([node])
        for other, _ in self._running.values():
            self._stage, self._title = other.stage, other.title

    def finished(self, nodes: Iterable[Node]) -> None:
        """Count nodes that are finished, whichever process computed them; once each."""
        for node in nodes:
            if node.key in self._missing:
                self._missing.remove(node.key)
                self._stages[node.stage]["done"] += 1

    @contextmanager
    def waiting(self, node: Node) -> Iterator[None]:
        """Wait in the block for another process that computes the node."""
        self._waiting = f"{node.stage}/{node.key}"
        try:
            yield
        finally:
            self._waiting = None

    def snapshot(self) -> dict[str, Any]:
        """Return what can be said now, as plain JSON; any thread may ask.

        ``stages`` counts nodes over all runs, ``nodes`` those that this one has to compute in the
        current ``stage``, and the ``seconds`` that those which are done took; ``items`` is the
        innermost progress bar inside the current node, its ``rate`` in items per second.
        """
        running = list(self._running.values())
        inner = running[-1][1]() if running else []
        return {
            "until": self._until,
            "stages": self._stages,
            "stage": self._stage,
            "title": self._title,
            "nodes": dict(self._nodes[self._stage]),
            "items": _items(inner[-1]) if inner else None,
            "waiting": self._waiting,
            "started": self._started,
            "host": platform.node(),
            "pid": os.getpid(),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
        }


_CURRENT: ContextVar[Status] = ContextVar("status")


def current() -> Status:
    """Return the status of the run that this code is part of;
    without one, a status that nobody writes.
    """
    return _CURRENT.get(Status())


@contextmanager
def followed(folder: Path) -> Iterator[None]:
    """Keep ``folder/status.json`` up to date during the block;
    in the end it says how the block ended.
    """
    status, end = Status(), threading.Event()
    path = Path(folder) / STATUS
    writer = threading.Thread(
        target=_keep_writing, args=(status, path, end), name="status", daemon=True
    )
    token = _CURRENT.set(status)
    writer.start()
    state, error = "interrupted", None
    try:
        yield
        state = "done"
    except Exception as caught:
        state, error = "failed", _two_lines(caught, folder)
        raise
    finally:
        _CURRENT.reset(token)
        end.set()
        writer.join()
        _write(path, state, status.snapshot(), error)


def _keep_writing(status: Status, path: Path, end: threading.Event) -> None:
    written, last = None, 0.0
    while not end.is_set():
        now, snapshot = time.monotonic(), status.snapshot()
        text = repr(snapshot)  # of this moment: the counts inside go on changing
        if text != written or now - last >= _BEAT:
            _write(path, "running", snapshot)
            written, last = text, now
        end.wait(_TICK)


def _write(
    path: Path, state: str, snapshot: dict[str, Any], error: list[str] | None = None
) -> None:
    with suppress(OSError):  # a full disk has its say where the results are written
        write_json(path, {"state": state, **snapshot, "updated": time.time(), "error": error})


def _items(bar: Task) -> dict[str, Any]:
    return {"what": bar.description, "done": bar.completed, "total": bar.total, "rate": bar.speed}


def _two_lines(error: Exception, folder: Path) -> list[str]:
    """Return cause and remedy."""
    readable = error if isinstance(error, DdoqError) else disk_error(error, None)
    if readable is None:
        first = (str(error).splitlines() or [""])[0]
        return [
            f"{type(error).__name__}: {first}",
            f"the traceback is in {Path(folder) / 'run.log'}",
        ]
    return [readable.cause, readable.remedy]
