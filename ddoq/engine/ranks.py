"""Processes that torchrun or SLURM started, as one team.

Every process runs the same command and builds the same graph. They talk only to agree on what to do next and to
wait for each other; results go through the store. On the device each process is on its own, so nothing is reduced
and a batch gives the same result whichever process has it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import timedelta
from typing import Any

from ddoq.engine.quiet import quiet
from ddoq.errors import ConfigError, DdoqError, StageError
from ddoq.utils.ranks import Alone, company


class Team(Alone):
    """One of several processes; ``gather`` is their only meeting point, so that they cannot miss each other.

    Raises:
        ConfigError: the number of processes and the environment's description of them disagree.
    """

    def __init__(self):
        from lightning.fabric import Fabric
        from lightning.fabric.strategies import DDPStrategy

        nodes = int(os.environ.get("GROUP_WORLD_SIZE", os.environ.get("SLURM_NNODES", 1)))
        total = company()
        quiet()
        # A meeting may wait for a whole stage. A process that dies closes its connection, which ends the wait.
        strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(days=30))
        try:
            self._fabric = Fabric(accelerator="cpu", devices=total // nodes, num_nodes=nodes, strategy=strategy)
            self._fabric.launch()
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f"launcher: {total} processes on {nodes} nodes do not find together ({str(error).splitlines()[0]})",
                "start one process per device, the same number on every node (torchrun --nproc-per-node, "
                "srun --ntasks-per-node)",
            ) from error
        self.rank, self.size = self._fabric.global_rank, self._fabric.world_size

    def gather(self, value: Any = None) -> list:
        """See ``Alone.gather``.

        Raises:
            StageError: another process failed.
        """
        return self._meet((value, None))

    def fail(self, error: BaseException) -> None:
        """See ``Alone.fail``."""
        message = (error.cause, error.remedy) if isinstance(error, DdoqError) else (repr(error), "see its run.log")
        with suppress(StageError):  # others failed, too, or are gone
            self._meet((None, message))

    def _meet(self, message: tuple) -> list:
        import torch.distributed as dist

        everything: list = [None] * self.size
        try:
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
