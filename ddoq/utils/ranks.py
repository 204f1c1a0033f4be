"""Several processes that compute one run together. This one is alone; ``ddoq.engine.ranks`` has company."""

from __future__ import annotations

import os
from typing import Any


def company() -> int:
    """Return the number of processes that torchrun or SLURM started for this run."""
    if "RANK" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    # A batch script without srun sees SLURM_NTASKS, too, but is one process.
    return int(os.environ["SLURM_NTASKS"]) if "SLURM_STEP_ID" in os.environ else 1


def comes_first() -> bool:
    """Tell whether this process is number 0 of its run, before the processes have met."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0


class Alone:
    """The only process of a run.

    Attributes:
        rank: number of this process; number 0 plans, commits and reports.
        size: number of processes.
    """

    rank, size = 0, 1

    def gather(self, value: Any = None) -> list:
        """Wait for all processes; return everyone's value, in order of rank."""
        return [value]

    def share(self, value: Any = None) -> Any:
        """Wait for all processes; return the value of number 0."""
        return self.gather(value)[0]

    def fail(self, error: BaseException) -> None:
        """Let every other process stop with this error at its next ``gather``."""

    def mine(self, items: list) -> list:
        """Return this process's part of a list that all processes have."""
        return items[self.rank :: self.size]
