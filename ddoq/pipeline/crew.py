"""Several processes on this machine that compute the nodes of a run, each on one core."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from ddoq.errors import StageError
from ddoq.pipeline import status
from ddoq.pipeline.graph import Node
from ddoq.pipeline.schedule import shares
from ddoq.pipeline.store import Store
from ddoq.pipeline.worker import Assignment, FarError, MakeCompute, work
from ddoq.utils.console import FarBar, console
from ddoq.utils.cores import start_method

_PATIENCE = 5.0  # seconds that a process has to leave what it does


@dataclass(eq=False)
class _Worker:
    """One process, and the line to it."""

    process: BaseProcess
    connection: Connection


@dataclass(eq=False, kw_only=True)
class _Work:
    """A node that is being computed.

    Attributes:
        node: that is computed.
        workers: the processes that do, by rank; several share out its items.
        bar: of the first one.
        begun: when, in seconds.
        met: what they have brought to their next meeting, by rank.
        results: of those that are through, by rank.
    """

    node: Node
    workers: list[_Worker]
    bar: FarBar
    begun: float = field(default_factory=time.monotonic)
    met: dict[int, Any] = field(default_factory=dict)
    results: dict[int, bool | None] = field(default_factory=dict)

    def begin(self, wait: bool) -> None:
        """Tell the processes; ``wait``: for another run that computes the node."""
        for rank, worker in enumerate(self.workers):
            worker.connection.send(Assignment(self.node, rank, len(self.workers), wait))

    def meet(self, rank: int, value: Any) -> None:
        """Let the processes go on once all have come."""
        self.met[rank] = value
        if len(self.met) == len(self.workers):
            values = [self.met[other] for other in range(len(self.workers))]
            self.met.clear()
            for worker in self.workers:
                worker.connection.send(values)


class Crew:
    """A pool of processes; see ``ddoq.pipeline.runner.Pool``.

    They live as long as the block: when it is left, none of them is.

    Args:
        size: number of processes.
        store: where artefacts go.
        make_compute: see ``MakeCompute``.
    """

    def __init__(self, size: int, store: Store, make_compute: MakeCompute):
        self.size, self.store, self.make_compute = size, store, make_compute
        self._workers: list[_Worker] = []
        self._works: list[_Work] = []

    def __enter__(self) -> Crew:
        try:
            self._start()
        except BaseException:  # the others are not to be left behind
            self.close()
            raise
        return self

    def _start(self) -> None:
        method = start_method()
        if method == "spawn":
            console.print(f"[dim]{self.size} processes start anew: this system cannot fork them[/]")
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(["ddoq.stages.evaluate"])
        for _ in range(self.size):
            ours, theirs = context.Pipe()
            arguments = theirs, self.store, self.make_compute
            process = context.Process(target=work, args=arguments, name="ddoq worker")
            process.start()
            theirs.close()
            self._workers.append(_Worker(process, ours))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, whatever they do."""
        for worker in self._workers:
            worker.connection.close()  # which ends those that wait for work
            worker.process.terminate()
        end = time.monotonic() + _PATIENCE
        for worker in self._workers:
            worker.process.join(max(0.0, end - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()

    @property
    def running(self) -> set[str]:
        """See ``Pool.running``."""
        return {work.node.key for work in self._works}

    def agree(self, missing: set[str]) -> set[str]:
        """See ``Pool.agree``."""
        return missing

    def run(self, nodes: Sequence[Node], wait: bool) -> list[tuple[Node, bool | None]]:
        """See ``Pool.run``.

        Raises:
            StageError: a process was killed.
        """
        busy = {id(worker) for work in self._works for worker in work.workers}
        idle = [worker for worker in self._workers if id(worker) not in busy]
        for node, size in shares(nodes, len(idle)):
            workers, idle = idle[:size], idle[size:]
            self._works.append(_Work(node=node, workers=workers, bar=FarBar(node.title)))
            self._works[-1].begin(wait)
            status.current().begun(node, self._works[-1].bar.tasks)
        if not wait:
            return self._listen()
        with status.current().waiting(nodes[0]):
            return self._listen()

    def _listen(self) -> list[tuple[Node, bool | None]]:
        """Return the nodes that end next."""
        ended: list[tuple[Node, bool | None]] = []
        while not ended:
            lines = {
                of: (work, rank)
                for work in self._works
                for rank, worker in enumerate(work.workers)
                for of in (worker.connection, worker.process.sentinel)
                if rank not in work.results
            }
            # What a process has said before it died counts.
            heard = sorted(wait_for(list(lines)), key=lambda of: isinstance(of, int))
            for of in heard:
                work, rank = lines[of]
                if rank not in work.results:
                    self._hear(work, rank)
            for work in [work for work in self._works if len(work.results) == len(work.workers)]:
                self._works.remove(work)
                ended.append((work.node, work.results[0]))
                self._end(work)
        return ended

    def _hear(self, work: _Work, rank: int) -> None:
        """Read one message of a process.

        Raises:
            StageError: it was killed.
            Exception: the one that it raised.
        """
        try:
            what, value = work.workers[rank].connection.recv()
        except (EOFError, OSError):
            raise _killed(work, rank) from None
        match what:
            case "print":
                objects, options = value
                console.print(*objects, **options)
            case "log":
                logging.getLogger(value.name).handle(value)
            case "bar" if rank == 0:
                work.bar.show(value)
            case "meet":
                work.meet(rank, value)
            case "failed":
                error, trace = value
                raise error from FarError(trace)
            case "ended":
                work.results[rank] = value

    def _end(self, work: _Work) -> None:
        work.bar.show(None)
        seconds = time.monotonic() - work.begun
        status.current().ended(work.node, seconds * len(work.workers) / self.size)


def _killed(work: _Work, rank: int) -> StageError:
    """Return the error that says how the process of a node ended."""
    process, node = work.workers[rank].process, work.node
    process.join(_PATIENCE)
    code = process.exitcode
    how = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        how += ", as by the system where memory runs out"
    return StageError(
        f"{node.stage} {node.title}: its process was killed ({how})",
        "set trainer.processes to fewer than now; the same command goes on from there",
    )
