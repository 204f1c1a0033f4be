"""Signals that ask a run to stop: what it has computed stays,
and the same command goes on from there.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: ``scancel``, a time limit and preemption send SIGTERM;
#: ``sbatch --signal=USR1@120`` warns before a time limit. Ctrl-C is SIGINT: Lightning would end the
#: process without a word on Python's own ``KeyboardInterrupt``.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stopped(BaseException):
    """A signal asked this process to stop. Not an ``Exception``: whoever handles
    errors must not go on.

    Attributes:
        number: of the signal; ``128 + number`` is the exit code.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        if self.number == signal.SIGINT:
            return "interrupted"
        return f"stopped by {signal.Signals(self.number).name}"


@contextmanager
def stoppable(*signals: int) -> Iterator[None]:
    """Raise ``Stopped`` in the block when one of some signals (of ``SIGNALS``, where none is named)
    arrives, so that it is left the way errors leave it.

    Outside the main thread, where Python delivers no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        # SLURM sends SIGTERM more than once; the way out is not to be interrupted.
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in signals or SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
