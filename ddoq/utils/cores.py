"""How many cores and how much memory this process may use, and how many processes make sense.

Cores are given to processes, not to threads: a second thread makes small networks hardly faster
(a step of a small ConvNet takes 6 ms on one thread or on two) and waits for the other one in a
loop, so that beside one busy process the same step takes 126 ms to 280 ms.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

#: What one process takes: its own copy of the images and of the networks in training.
_MEMORY_OF_ONE = 2**30
#: Whether this process may be forked: it has computed nothing, so that torch has no threads yet.
_may_fork = False
_CGROUPS = Path("/sys/fs/cgroup")
_SLURM = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")


def allow_fork() -> None:
    """Let ``start_method`` fork this process, whose life began with a command of ddoq's."""
    global _may_fork
    _may_fork = True


def forbid_fork() -> None:
    """Keep ``start_method`` from forking this process, which is about to compute:
    torch's threads do not survive it.
    """
    global _may_fork
    _may_fork = False


def start_method() -> str:
    """Return how processes are started, a name of ``multiprocessing``'s."""
    if sys.platform != "linux":
        return "spawn"
    return "fork" if _may_fork else "forkserver"


def usable_cores() -> int:
    """Return how many cores this process may use: those that it is bound to, or fewer where a
    control group or SLURM grants less time.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    granted = next((os.environ[name] for name in _SLURM if name in os.environ), "")
    limits = [bound or 1, *_quotas(_groups())]
    return max(1, min([*limits, int(granted)] if granted.isdecimal() else limits))


def usable_memory() -> int:
    """Return the bytes that are free for this process, on the machine and in its control group."""
    free = [psutil.virtual_memory().available]
    for group in _groups():
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and used is not None:
            free.append(limit - used + _reclaimable(group))
    return max(0, min(free))


def useful_processes(asked: int | str, num_nodes: int) -> int:
    """Return how many processes are to compute.

    Args:
        asked: ``trainer.processes``: a number, or ``auto`` for as many as there are cores and as
            fit into the memory.
        num_nodes: that have to be computed.
    """
    if asked == "auto":
        asked = max(1, min(usable_cores(), usable_memory() // _MEMORY_OF_ONE))
    return max(1, min(int(asked), num_nodes))


def _groups() -> Iterator[Path]:
    """Yield the folders of this process's control group and of those above it (version 2)."""
    if sys.platform != "linux":
        return
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    if own is not None:
        folder = _CGROUPS / own.lstrip("/")
        yield from (
            group for group in (folder, *folder.parents) if _CGROUPS in (group, *group.parents)
        )


def _quotas(groups: Iterator[Path]) -> Iterator[int]:
    """Yield the whole cores that control groups grant, where they limit the time."""
    for group in groups:
        try:
            quota, period = (group / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota.isdecimal():
            yield int(quota) // int(period)
    cpu_group = _CGROUPS / "cpu"  # version 1, as containers see it
    quota, period = (
        _number(cpu_group / "cpu.cfs_quota_us"),
        _number(cpu_group / "cpu.cfs_period_us"),
    )
    if quota is not None and period:
        yield quota // period


def _reclaimable(group: Path) -> int:
    """Return the bytes of files in memory that a group gives back when it needs room."""
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))


def _number(path: Path) -> int | None:
    """Return the number in a file; ``None`` where there is none (no limit)."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
