"""Several processes that compute one run together.

This one is alone; ``ddoq.engine.ranks`` has company.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddoq.errors import ConfigError

#: Steps from this number on are no srun's: batch scripts, and the shells of salloc.
_FIRST_SPECIAL_STEP = 0xFFFFFFF0

#: Read as numbers by the libraries below, too.
_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_LOCALID", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which of how many processes this one is, by the variables of what started it.

    Attributes:
        rank: number of this process; number 0 plans, commits and reports.
        size: number of processes.
        start: what started it, as a user would recognise it.
        address, port: where number 0 waits for the others; empty for a process that is alone.
        run: tells apart what different commands of one user start on one machine.
    """

    rank: int = 0
    size: int = 1
    start: str = ""
    address: str = ""
    port: int = 0
    run: str = ""


def place() -> Place:
    """Return this process's place.

    torchrun's variables come first; those of SLURM count in a task of srun only, see ``_is_task``.

    Raises:
        ConfigError: the variables contradict each other, or are no numbers.
    """
    for name in _NUMBERS:
        number(name)
    if "RANK" in os.environ or "WORLD_SIZE" in os.environ:
        return _place_of_torchrun()
    return _place_of_srun() if _is_task() else Place()


def number(name: str, default: int | None = None) -> int | None:
    """Return a variable of the environment as a number, or ``default`` where it is not set.

    Raises:
        ConfigError: it is none, or negative.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"\d+", text.strip(), re.ASCII):
        raise ConfigError(
            f"environment: {name}={text!r} is no number of a process",
            f"unset {name}, or start with torchrun or srun, which set it",
        )
    return int(text)


def company() -> int:
    """Return the number of processes that torchrun or srun started for this run."""
    return place().size


def granted(name: str) -> int:
    """Return how many tasks or GPUs SLURM has granted, by one of its variables;
    1 where that says nothing.
    """
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else 1


def unused_tasks() -> int:
    """Return how many tasks SLURM has granted where this process is none of them,
    but of a shell or script; else 0.

    Such a shell may have all variables that srun sets, or some of them.
    It gets one process, and awaits nothing.
    """
    tasks = granted("SLURM_NTASKS")
    return tasks if tasks > 1 and "RANK" not in os.environ and not _is_task() else 0


def _place_of_torchrun() -> Place:
    rank, size = number("RANK"), number("WORLD_SIZE")
    if rank is None or size is None:
        there, missing = ("RANK", "WORLD_SIZE") if size is None else ("WORLD_SIZE", "RANK")
        raise ConfigError(
            f"environment: {there}={os.environ[there]} without {missing}",
            f"unset {there} to run one process, or start several with torchrun, which sets both",
        )
    if rank >= size:
        raise ConfigError(
            f"environment: RANK={rank} is none of WORLD_SIZE={size} processes, "
            "which are numbered from 0",
            "unset RANK and WORLD_SIZE to run one process, "
            "or start several with torchrun, which sets both",
        )
    by = "torchrun: " if "TORCHELASTIC_RUN_ID" in os.environ else "variables: "
    start = f"{by}RANK={rank} WORLD_SIZE={size}"
    if size == 1:
        return Place(start=start)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise ConfigError(
                f"environment: RANK={rank} WORLD_SIZE={size} without {name}, "
                "where process 0 is to be found",
                "start the processes with torchrun, "
                "or unset RANK and WORLD_SIZE to run one process",
            )
    address, port = os.environ["MASTER_ADDR"], number("MASTER_PORT")
    attempt = [
        os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
    ]
    return Place(
        rank=rank,
        size=size,
        start=f"{start} MASTER_ADDR={address} MASTER_PORT={port}",
        address=address,
        port=port,
        run=".".join(attempt),
    )


def _is_task() -> bool:
    """Tell whether srun started this process as one of several tasks.

    Shells inside an allocation have the variables, too: that of ``salloc`` those of the job, that
    of ``srun --pty`` all of them (the other tasks' shells have ended at once), and what they submit
    inherits them. So the task has to be this process or above it, and no shell on a terminal.
    """
    names = ("SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_TASK_PID", "SLURM_PROCID")
    values = [os.environ.get(name, "") for name in names]
    if not all(value.isdecimal() for value in values):
        return False
    step, tasks, task, rank = map(int, values)
    if step >= _FIRST_SPECIAL_STEP or tasks <= 1 or rank >= tasks:
        return False
    return task in _ancestors() and not _on_terminal(task)


def _ancestors() -> Iterator[int]:
    """Yield the number of this process and of those above it."""
    process = os.getpid()
    while process > 0:
        yield process
        try:
            stat = Path(f"/proc/{process}/stat").read_text()
        except OSError:
            return
        # The name, in parentheses, may hold anything.
        process = int(stat.rpartition(")")[2].split()[1])


def _on_terminal(process: int) -> bool:
    try:
        return os.readlink(f"/proc/{process}/fd/0").startswith(("/dev/pts/", "/dev/tty"))
    except OSError:
        return False


def _place_of_srun() -> Place:
    names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_ID")
    rank, size, step = (int(os.environ[name]) for name in names)
    job = number("SLURM_JOB_ID", 0)
    nodes = os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")
    address = os.environ.get("MASTER_ADDR") or _first_node(nodes)
    port = number("MASTER_PORT") or 15000 + (job + 101 * step) % 10000  # which all tasks know
    start = f"srun: task {rank} of {size} of SLURM's job {job}, step {step}, on {nodes}"
    return Place(rank=rank, size=size, start=start, address=address, port=port, run=f"{job}.{step}")


def _first_node(nodes: str) -> str:
    """Return the first name of a list as SLURM writes it:
    ``gpu[07-09,12],login`` begins with ``gpu07``.
    """
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", re.match(r"(?:\[[^\]]*\]|[^,])*", nodes).group())


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
