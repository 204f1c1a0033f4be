"""Processes that torchrun or srun started, as one team.

Every process runs the same command and builds the same graph. They talk only to agree on what to do
next and to wait for each other; results go through the store. On the device each process is on its
own, so nothing is reduced and a batch gives the same result whichever process has it.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from ddoq.engine.contact import join
from ddoq.errors import DdoqError, StageError
from ddoq.utils.ranks import Alone, Place

#: A meeting may wait for a whole stage. A process that dies closes its connection,
#: which ends the wait.
_PATIENCE = timedelta(days=30)


class Team(Alone):
    """One of several processes; ``gather`` is their only meeting point,
    so that they cannot miss each other.

    Args:
        place: of this process among them.
        patience: seconds until all have to be there.

    Raises:
        ConfigError: see ``ddoq.engine.contact.join``.
    """

    def __init__(self, place: Place, patience: float):
        # Read when torch is imported. Its C++ part would fill the screen
        # with a connection that fails.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")

        self.rank, self.size = place.rank, place.size
        if not dist.is_initialized():  # by an earlier run of this process's
            join(place, patience)

    def gather(self, value: Any = None) -> list:
        """See ``Alone.gather``.

        Raises:
            StageError: another process failed.
        """
        return self._meet((value, None))

    def fail(self, error: BaseException) -> None:
        """See ``Alone.fail``."""
        message = (
            (error.cause, error.remedy)
            if isinstance(error, DdoqError)
            else (repr(error), "see its run.log")
        )
        with suppress(StageError):  # others failed, too, or are gone
            self._meet((None, message))

    def _meet(self, message: tuple) -> list:
        everything: list = [None] * self.size
        try:
            _wait_for_all()
            dist.all_gather_object(everything, message)
        except RuntimeError as error:  # its connection was closed
            raise StageError(
                f"another of the {self.size} processes is gone",
                "see why it ended; the same command goes on from there",
            ) from error
        for rank, (_, error) in enumerate(everything):
            if error is not None and rank != self.rank:
                raise StageError(f"process {rank} of {self.size}: {error[0]}", error[1])
        return [value for value, _ in everything]


def _wait_for_all() -> None:
    """Wait until all processes are here, in Python, which hears signals meanwhile."""
    options = dist.BarrierOptions()
    options.timeout = _PATIENCE
    work, pause = dist.group.WORLD.barrier(options), 0.001
    while not work.is_completed():
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    work.wait()
