"""What a wave's jobs ask SLURM for, beside what its partitions have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddoq.errors import ConfigError
from ddoq.sweeps.waves import Wave, resources_key


@dataclass(frozen=True, kw_only=True)
class ComputeNodes:
    """Nodes of a partition that are alike.

    Attributes:
        partition: its name.
        default: it is the partition of those who name none.
        number: of nodes.
        cpus, memory, gpus: of each; memory in MB.
        minutes: that a job may take; ``None`` for no limit.
    """

    partition: str
    default: bool
    number: int
    cpus: int
    memory: int
    gpus: int
    minutes: int | None

    def __str__(self) -> str:
        limit = "" if self.minutes is None else f", at most {self.minutes} min"
        return f"{_resources(self.number, self.cpus, self.memory / 1024, self.gpus)}{limit}"


def read_partitions(text: str) -> list[ComputeNodes]:
    """Return what ``sinfo`` prints with the format ``%P|%D|%c|%m|%G|%l``,
    equal nodes in different states together.
    """
    numbers: dict[tuple, int] = {}
    for line in text.splitlines():
        fields = line.strip().split("|")
        if len(fields) == 6:
            name, number, *has = fields
            numbers[(name, *has)] = numbers.get((name, *has), 0) + _first_number(number)
    return [
        ComputeNodes(
            partition=name.rstrip("*"),
            default=name.endswith("*"),
            number=number,
            cpus=_first_number(cpus),
            memory=_first_number(memory),
            gpus=sum(int(gpus) for gpus in re.findall(r"gpu(?::[^:,(]+)?:(\d+)", gres)),
            minutes=_minutes(limit),
        )
        for (name, cpus, memory, gres, limit), number in numbers.items()
    ]


def _first_number(text: str) -> int:
    match = re.match(r"\d+", text)
    return int(match.group()) if match else 0


def _minutes(limit: str) -> int | None:
    """Return minutes of a limit as SLURM writes it: ``1-00:00:00``, ``5:00``, ``infinite``."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if not match:
        return None
    days, hours, minutes, _ = (int(part or 0) for part in match.groups())
    return (days * 24 + hours) * 60 + minutes


@dataclass(frozen=True)
class Asked:
    """What each job of a wave asks for.

    Attributes:
        conf: ``hydra.launcher`` with the wave's own resources.
        wave: it belongs to.
    """

    conf: Mapping[str, Any]
    wave: Wave

    def __str__(self) -> str:
        cpus = self._get("cpus_per_task", 1) * self._get("tasks_per_node", 1)
        resources = _resources(
            self._get("nodes", 1), cpus, self._get("mem_gb"), self._get("gpus_per_node")
        )
        return f"{resources}, for {self._get('timeout_min')} min"

    def _get(self, name: str, default: int = 0) -> int:
        return self.conf.get(name) or default

    def _too_much(self, nodes: ComputeNodes) -> Iterator[str]:
        """Yield the overrides that make the jobs fit to some nodes."""
        tasks = min(self._get("tasks_per_node", 1), nodes.cpus)
        most = {
            "nodes": nodes.number,
            "tasks_per_node": tasks,
            "cpus_per_task": nodes.cpus // max(1, tasks),
            "mem_gb": nodes.memory // 1024,
            "gpus_per_node": min(tasks, nodes.gpus),
            "timeout_min": nodes.minutes,
        }
        for name, limit in most.items():
            if limit is not None and self._get(name) > limit:
                yield f"{resources_key(self.wave, name)}={limit}"

    def error(
        self, cause: str, partitions: Sequence[ComputeNodes], partition: str | None, done: str = ""
    ) -> ConfigError:
        """Return the error that says what was asked for, what there is,
        and which overrides would fit.

        Args:
            cause: what SLURM does not do, and its reason.
            partitions: of the cluster.
            partition: where the jobs were to run; ``None`` for the default one.
            done: what has been done about it.
        """
        names = set((partition or "").split(","))
        own = [
            nodes
            for nodes in partitions
            if nodes.partition in names or (not partition and nodes.default)
        ]
        has = f"; partition {own[0].partition} has {' and '.join(map(str, own))}" if own else ""
        fitting = {nodes.partition for nodes in partitions if not list(self._too_much(nodes))}
        others = sorted(fitting - {nodes.partition for nodes in own})
        fits = min((list(self._too_much(nodes)) for nodes in own), key=len, default=[])
        remedies = [f"set {' '.join(fits)}"] if fits else []
        if others:
            remedies.append(
                f"set {resources_key(self.wave, 'partition')} to one that has it: "
                f"{', '.join(others)}"
            )
        if not fits:
            remedies.append("see hydra.launcher.account, qos, constraint and additional_parameters")
        ended = f" ({done})" if done else ""
        return ConfigError(
            f"hydra.launcher: {cause}: asked for {self}{has}{ended}", ", or ".join(remedies)
        )


def _resources(nodes: int, cpus: int, memory: float, gpus: int) -> str:
    parts = [f"{counted(nodes, 'node')} of {counted(cpus, 'core')}"]
    if memory:
        parts.append(f"{memory:.3g} GB")
    if gpus:
        parts.append(counted(gpus, "GPU"))
    return ", ".join(parts)


def counted(number: int, what: str) -> str:
    """Return ``1 job`` or ``2 jobs``."""
    return f"{number} {what}{'' if number == 1 else 's'}"
