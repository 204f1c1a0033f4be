"""Processes that load batches, and what the machine does not give them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ddoq.errors import StageError

#: What torch, or the system below it, says in such a case, and what it means.
_LACKS = (
    (
        r"shared memory|\bshm\b|Bus error",
        "there is too little shared memory (/dev/shm) for their batches",
    ),
    (r"ancdata|Too many open files", "they may not open so many files (ulimit -n)"),
    (r"Cannot allocate memory|signal: Killed", "there is too little memory for them"),
    (r"DataLoader worker \(pid\(?s?\)? .*\) (exited unexpectedly|is killed)", "one of them died"),
)


@contextmanager
def with_workers(num: int) -> Iterator[None]:
    """Compute in the block with ``num`` processes that load batches.

    Raises:
        StageError: the machine does not give them what they need.
    """
    try:
        yield
    except (RuntimeError, OSError) as error:
        lacks = next((meaning for sign, meaning in _LACKS if re.search(sign, str(error))), None)
        if not num or lacks is None:
            raise
        raise StageError(
            f"trainer.num_workers: {num} processes load images, and {lacks}",
            "set trainer.num_workers=0, "
            "which gives the same results, or raise the limit (docker run --shm-size=8g)",
        ) from error
