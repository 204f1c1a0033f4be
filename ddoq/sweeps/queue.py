"""SLURM's queue as a launcher watches it:
what its jobs wait for, whether they can start at all, and their end.

submitit submits and waits for results; it never looks at the queue.
So that happens in a thread, while this one looks.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ddoq.errors import ConfigError, StageError
from ddoq.sweeps.asked import Asked, ComputeNodes, counted, read_partitions
from ddoq.utils.console import console

#: Reasons that no waiting changes: the job asks for what nobody may have.
_NEVER = re.compile(
    r"PartitionConfig|PartitionNodeLimit|PartitionTimeLimit"
    r"|BadConstraints|DependencyNeverSatisfied|ReservationDeleted"
    r"|InvalidAccount|InvalidQOS|AccountNotAllowed|QOSNotAllowed|MaxMemPerLimit"
    r"|(QOS|Assoc)Max\w*Per(Job|Node)(Limit)?|QOSMin\w+"
)
#: Reasons that only somebody's command changes.
_HELD = {
    "JobHeldUser": "`scontrol release` lets them go",
    "JobHeldAdmin": "an administrator holds them",
}
_OVER = {
    *(
        "COMPLETED",
        "CANCELLED",
        "FAILED",
        "TIMEOUT",
        "NODE_FAIL",
        "BOOT_FAIL",
        "DEADLINE",
        "OUT_OF_MEMORY",
        "REVOKED",
    ),
    "PREEMPTED",
}
_TICK = 0.5  # seconds between two glances at the submission
#: Seconds between two looks, at first and afterwards.
_SOON, _LATER, _FIRST_MINUTES = 5.0, 30.0, 120.0
_SURE = 3  # looks in a row with a reason, as the scheduler's first ones may pass
_OFTEN = 60.0  # seconds before a change of numbers alone is worth a line
_RESULTS = 60.0  # seconds that results may take to appear once the queue has no more of the jobs


@dataclass(frozen=True)
class QueuedJob:
    """A job, or an element of an array, in the queue."""

    job: str
    state: str
    reason: str
    partition: str


def read_queue(text: str) -> list[QueuedJob]:
    """Return what ``squeue`` prints with the format ``%F|%T|%P|%r``, without jobs that are over."""
    rows = [line.strip().split("|", 3) for line in text.splitlines() if line.count("|") >= 3]
    return [
        QueuedJob(job, state, reason, partition)
        for job, state, partition, reason in rows
        if state not in _OVER
    ]


def never_starts(entries: Sequence[QueuedJob]) -> QueuedJob | None:
    """Return one of the jobs that can never start, if there is one."""
    pending = [entry for entry in entries if entry.state == "PENDING"]
    return next((entry for entry in pending if _NEVER.fullmatch(entry.reason)), None)


def summary(entries: Sequence[QueuedJob]) -> str:
    """Return one line: how many run, how many are pending and why."""
    states = Counter(entry.state for entry in entries)
    reasons = Counter(entry.reason for entry in entries if entry.state == "PENDING")
    parts = [
        f"{number} {state.lower()}"
        for state, number in sorted(states.items())
        if state != "PENDING"
    ]
    if pending := states["PENDING"]:
        why = "; ".join(
            f"{reason}: {_HELD[reason]}" if reason in _HELD else reason
            for reason in sorted(reasons)
        )
        parts.append(f"{pending} pending ({why})")
    return ", ".join(parts) or "no more jobs, waiting for results"


class _Submission(threading.Thread):
    """Submits jobs and waits for their results."""

    def __init__(self, launch: Callable[[], Any]):
        super().__init__(name="submission", daemon=True)
        self.launch, self.result, self.error = launch, None, None

    def run(self) -> None:
        """See ``threading.Thread``."""
        try:
            self.result = self.launch()
        except Exception as error:  # whoever watches the queue tells it
            self.error = error


def follow(launch: Callable[[], Any], submitted: Callable[[], set[str]], asked: Asked) -> Any:
    """Submit jobs and wait for their results, and tell what the queue says meanwhile.

    Interrupted, it cancels what is pending and leaves alone what runs.

    Args:
        launch: submits, waits and returns results; raises where a job was killed.
        submitted: returns the numbers of the jobs that have been submitted.
        asked: what the jobs ask for.

    Returns:
        What ``launch`` returns, or ``None`` where jobs have ended without a result.

    Raises:
        ConfigError: SLURM does not answer, does not take the jobs, or can never start them.
    """
    submission, watch = _Submission(launch), _Watch(asked)
    submission.start()
    try:
        while True:
            if submission.is_alive():
                submission.join(_TICK)
            elif submission.error is None:
                return submission.result
            elif not submitted():
                raise refusal(submission.error, asked) from submission.error
            else:
                time.sleep(_TICK)
            if watch.is_due() and (jobs := submitted()):
                watch.look(jobs)
            if watch.seconds_empty() > (_RESULTS if submission.is_alive() else 0):
                return None
    except KeyboardInterrupt:
        if not submitted():
            submission.join(2)  # sbatch may be about to say a number
        _say(interrupt(submitted()))
        raise


class _Watch:
    """Looks at the jobs from time to time, and says what has changed."""

    def __init__(self, asked: Asked):
        self.asked = asked
        self._start = self._told = time.monotonic()
        self._next = self._start + 1
        self._empty: float | None = None  # since when the queue has none of the jobs
        self._hopeless = 0  # looks in a row at which some job could never start
        self._line, self._kinds = "", None

    def is_due(self) -> bool:
        """Tell whether it is time to look again."""
        return time.monotonic() >= self._next

    def seconds_empty(self) -> float:
        """Return for how long the queue has had none of the jobs; -1 where it has some."""
        return -1.0 if self._empty is None else time.monotonic() - self._empty

    def look(self, jobs: set[str]) -> None:
        """Look once.

        Raises:
            ConfigError: some job can never start; what was pending has been cancelled.
        """
        now = time.monotonic()
        self._next = now + (_SOON if now - self._start < _FIRST_MINUTES else _LATER)
        try:
            entries = queue(jobs)
        except StageError as error:
            self._tell(f"{error.cause}; the launcher goes on waiting", error.cause)
            return
        self._empty = None if entries else self._empty or now
        self._tell(summary(entries), {(entry.state, entry.reason) for entry in entries})
        hopeless = never_starts(entries)
        self._hopeless = self._hopeless + 1 if hopeless else 0
        if hopeless and self._hopeless == _SURE:
            cancelled = cancel_pending(jobs)
            raise self.asked.error(
                f"SLURM can never start job {hopeless.job} ({hopeless.reason})",
                partitions(),
                hopeless.partition,
                f"{counted(cancelled, 'pending job')} cancelled",
            )

    def _tell(self, line: str, kinds: Any) -> None:
        now = time.monotonic()
        if line != self._line and (kinds != self._kinds or now - self._told > _OFTEN):
            self._line, self._kinds, self._told = line, kinds, now
            _say(line)


def _say(line: str) -> None:
    console.print(f"queue: {line}", style="dim", markup=False, soft_wrap=True)


def queue(jobs: set[str]) -> list[QueuedJob]:
    """Return where some jobs stand, an array's elements one by one.

    Raises:
        StageError: SLURM does not answer.
    """
    text = _run(
        "squeue",
        "--noheader",
        "--array",
        "--states=all",
        f"--user={os.getuid()}",
        "--format=%F|%T|%P|%r",
    )
    return [entry for entry in read_queue(text) if entry.job in jobs]


def partitions() -> list[ComputeNodes]:
    """Return what the cluster's partitions have, nothing where SLURM does not say."""
    try:
        return read_partitions(_run("sinfo", "--noheader", "--exact", "--format=%P|%D|%c|%m|%G|%l"))
    except StageError:
        return []


def cancel_pending(jobs: set[str]) -> int:
    """Cancel what of some jobs is still pending, and return how many that was.

    Raises:
        StageError: SLURM does not answer.
    """
    pending = [entry for entry in queue(jobs) if entry.state == "PENDING"]
    if pending:
        _run("scancel", "--state=PENDING", *sorted(jobs))
    return len(pending)


def interrupt(jobs: set[str]) -> str:
    """Cancel what is pending; return a line that says so, and what still runs."""
    try:
        cancelled = cancel_pending(jobs) if jobs else 0
        running = sorted({entry.job for entry in queue(jobs)}) if jobs else []
    except StageError as error:
        return f"{error.cause}; nothing was cancelled: scancel {' '.join(sorted(jobs))}"
    runs = (
        f"what runs goes on (`scancel {' '.join(running)}` ends it)" if running else "nothing runs"
    )
    return f"{counted(cancelled, 'pending job')} cancelled, {runs}"


def _run(*command: str) -> str:
    """Return what one of SLURM's commands prints.

    Raises:
        StageError: it is not there, fails, or does not end.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StageError(
            f"{command[0]} does not answer ({error})", "see `scontrol ping`"
        ) from error
    if done.returncode:
        message = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise StageError(f"{command[0]} does not answer ({message})", "see `scontrol ping`")
    return done.stdout


def refusal(error: Exception, asked: Asked) -> Exception:
    """Return the two lines that say why a submission failed;
    the error itself where SLURM has no part in it.
    """
    text = f"{error}\n{error.__cause__ or ''}"
    if "Could not detect" in text or isinstance(error, FileNotFoundError):
        return ConfigError(
            "launcher: there is no SLURM on this machine (neither srun nor sbatch)",
            "start the command where `sbatch --version` answers, "
            "or use launcher=joblib, submitit_local or local",
        )
    messages = re.findall(r"^sbatch: (?:error|fatal): (.+)$", text, re.MULTILINE)
    if not messages:
        return error
    if re.search(r"[Uu]nable to contact|onfiguration (source|file)|DNS|onnection refused", text):
        return ConfigError(
            f"launcher: SLURM's controller does not answer ({messages[-1]})",
            "wait until `scontrol ping` says that it is up, then repeat the command; "
            "launcher=joblib needs no SLURM",
        )
    return asked.error(
        f"SLURM refuses the jobs ({messages[-1]})", partitions(), asked.conf.get("partition")
    )
