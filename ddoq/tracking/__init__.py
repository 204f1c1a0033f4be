"""Mirrors of the local files: a CSV, event files, or Weights & Biases.

Never the truth, never in the way.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ddoq.tracking.results import Results, Student, TrackedArtefact
from ddoq.tracking.trackers import CSVTracker, TensorBoardTracker, Tracker
from ddoq.tracking.weights_and_biases import WandbTracker

__all__ = ["Results", "Student", "TrackedArtefact", "Tracker", "session"]

_TRACKERS = {
    "none": Tracker,
    "csv": CSVTracker,
    "tensorboard": TensorBoardTracker,
    "online": WandbTracker,
    "offline": WandbTracker,
}


@contextmanager
def session(config: Mapping[str, Any], run_dir: Path) -> Iterator[Tracker]:
    """Yield the tracker that ``logger`` names;
    an exception inside is passed on to it as a crash, and so is SIGTERM.

    Raises:
        ConfigError: the tracker's package is not installed.
    """
    tracker = _TRACKERS[config["logger"]["mode"]](config, run_dir)
    with _terminated_by_exception() if isinstance(tracker, WandbTracker) else nullcontext():
        try:
            yield tracker
        except BaseException:
            tracker.finish(failed=True)
            raise
        tracker.finish(failed=False)


@contextmanager
def _terminated_by_exception() -> Iterator[None]:
    """Let SIGTERM exit through the open blocks,
    unless somebody (submitit, an embedding program) handles it already.
    """
    alone = threading.current_thread() is threading.main_thread()
    if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
