"""The first contact of the processes of a run:
each tells the others that it is there, and has a minute to wait.
"""

from __future__ import annotations

import os
import platform
import socket
import threading
import time
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore

from ddoq.errors import ConfigError
from ddoq.utils.console import console
from ddoq.utils.ranks import Place

_TICK = 0.1  # seconds between two looks
_SOON = 5.0  # seconds before anybody is told that something is awaited
_CONNECT = 30.0  # seconds to connect, once all have come
_EXCHANGE = timedelta(minutes=5)  # for a few bytes, among processes that are there
_ROLL = "roll"  # of the store: a line for each process that comes, or leaves again
_MOST = 8  # processes that a line lists


def join(place: Place, patience: float) -> None:
    """Make the processes of a run one process group of torch's.

    Torch waits where Python hears no signal, so a thread does it,
    and this one waits for that thread.

    Args:
        place: of this process.
        patience: seconds until all have to be there.

    Raises:
        ConfigError: who is missing, and how this process was started.
    """
    contact = _Contact(place)
    thread = threading.Thread(target=contact.make, name="first contact", daemon=True)
    start, told = time.monotonic(), False
    thread.start()
    try:
        while (
            thread.is_alive() and (waited := time.monotonic() - start) < patience + contact.extra()
        ):
            thread.join(_TICK)
            if waited > _SOON and not told and contact.speaks():
                told = True
                console.print(
                    f"[yellow]waiting up to {patience:g} s: {contact.missing()}[/]", soft_wrap=True
                )
        if thread.is_alive() or contact.error:
            raise contact.complaint(patience) from contact.error
    except BaseException:
        contact.leave()
        raise


class _Contact:
    """What one process knows of the others.

    Attributes:
        error: why there is no process group.
    """

    def __init__(self, place: Place):
        self.place = place
        self.error: Exception | None = None
        self._here = {place.rank: platform.node()}  # who has come, by number, and on which host
        self._gone: list[int] = []  # who has come and left again
        self._unreached = "no answer"  # why process 0 does not answer
        self._leaving = False
        self._store = None

    def make(self) -> None:
        """Meet the others; ends with the process group, or with ``error``."""
        try:
            self._meet()
        except Exception as error:  # whoever waits for this thread tells it
            self.error = error

    def _meet(self) -> None:
        place = self.place
        self._store = self._open()
        self._enrol("+")
        while not self._leaving and not self._complete():
            self._read_roll()
            time.sleep(_TICK)
        if not self._leaving:
            options = {"rank": place.rank, "world_size": place.size, "timeout": _EXCHANGE}
            dist.init_process_group("gloo", store=self._store, **options)

    def _open(self):
        """Return the store of process 0, or of torchrun in its place, once it answers."""
        place = self.place
        serves = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        while not serves and not self._leaving and not self._answers():
            time.sleep(_TICK)
        store = TCPStore(
            place.address, place.port, is_master=serves, wait_for_workers=False, timeout=_EXCHANGE
        )
        return PrefixStore(f"ddoq/{place.run}", store)

    def _answers(self) -> bool:
        try:
            socket.create_connection((self.place.address, self.place.port), timeout=1).close()
        except OSError as error:
            self._unreached = error.strerror or str(error)
            return False
        self._unreached = "who listens there does not speak torch's protocol"
        return True

    def _enrol(self, sign: str) -> None:
        place = self.place
        self._store.append(
            _ROLL, f"{sign} {place.rank} {place.size} {os.getpid()} {platform.node()}\n"
        )

    def _read_roll(self) -> None:
        """Look who has come and not left.

        Raises:
            ConfigError: two have the same number, or were told of different numbers of processes.
        """
        place, here, gone = self.place, {}, []
        for line in self._store.get(_ROLL).decode().splitlines():
            sign, rank, size, process = line.split(" ", 3)
            if int(size) != place.size:
                raise ConfigError(
                    f"launcher: process {place.rank} was told of {place.size} processes, "
                    f"process {rank} of {size}",
                    f"start all of them by one command; this one was started by {place.start}",
                )
            if sign == "-":
                here.pop(int(rank), None)
                gone.append(int(rank))
            elif here.setdefault(int(rank), process) != process:
                raise ConfigError(
                    f"launcher: two processes are number {rank} of {size}",
                    "start all of them by one command, which numbers them; "
                    f"this one was started by {place.start}",
                )
        self._here = {rank: process.partition(" ")[2] for rank, process in here.items()}
        self._gone = sorted(set(gone) - set(here))

    def leave(self) -> None:
        """Strike this process off the roll: who comes later is not to count on it."""
        self._leaving = True
        if self._store is not None:
            thread = threading.Thread(target=self._strike_off, daemon=True)
            thread.start()
            thread.join(1)

    def _strike_off(self) -> None:
        with suppress(Exception):  # process 0 may be gone, and the roll with it
            self._enrol("-")

    def _complete(self) -> bool:
        return len(self._here) == self.place.size

    def extra(self) -> float:
        """Return the seconds that all have to connect, once they have come."""
        return _CONNECT if self._complete() else 0.0

    def speaks(self) -> bool:
        """Tell whether the user is to hear of the waiting from this process:
        from the first, or without it.
        """
        return self.place.rank == 0 or self._store is None

    def missing(self) -> str:
        """Return who has not come, in words."""
        place = self.place
        if self._store is None and place.rank:
            return (
                f"process 0 of {place.size} does not answer at {place.address}:{place.port} "
                f"({self._unreached})"
            )
        missing = [
            rank for rank in range(place.size) if rank not in self._here and rank not in self._gone
        ]
        here = ", ".join(f"{rank} on {host}" for rank, host in sorted(self._here.items())[:_MOST])
        gone = f"; gone again: {_ranges(self._gone)}" if self._gone else ""
        return (
            f"{len(missing)} of {place.size} processes have not come: "
            f"{_ranges(missing)} (here: {here}{gone})"
        )

    def complaint(self, patience: float) -> ConfigError:
        """Return the error that says why there is no process group."""
        place, start = self.place, f"this one was started by {self.place.start}"
        if isinstance(self.error, ConfigError):
            return self.error
        why = (str(self.error).splitlines() or [""])[0] if self.error else "no answer"
        if self.error and self._store is None:
            return ConfigError(
                f"launcher: process {place.rank} cannot use {place.address}:{place.port} "
                f"({why}); {start}",
                "set MASTER_ADDR to the host of process 0 and MASTER_PORT to a free port there, "
                "for all processes",
            )
        if self._complete():
            return ConfigError(
                f"launcher: all {place.size} processes have come, "
                f"but do not reach each other ({why})",
                "set GLOO_SOCKET_IFNAME to the network interface that their hosts share; "
                "`ip addr` lists them",
            )
        if self.error:
            return ConfigError(
                f"launcher: process 0 of {place.size} has gone while {self.missing()}; {start}",
                "see why it ended, and start all of them again",
            )
        if place.start.startswith("srun"):
            commands = f"srun -n {place.size} ddoq ...), or one alone (srun -n 1 ddoq ..."
        else:
            commands = (
                f"torchrun --nproc-per-node {place.size} -m ddoq.run ...), "
                "or one alone (unset RANK WORLD_SIZE"
            )
        return ConfigError(
            f"launcher: after {patience:g} s {self.missing()}; {start}",
            f"start all at once ({commands}); "
            "where they start slowly, set trainer.join_timeout to more seconds",
        )


def _ranges(numbers: list[int]) -> str:
    """Return ascending numbers as people write them: ``1, 3-7``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
