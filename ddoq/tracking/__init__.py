"""Mirrors of the local files: a CSV, or a Weights & Biases run. Never the truth, never in the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddoq.tracking.trackers import CSVTracker, Tracker, WandbTracker


@contextmanager
def session(config: Mapping[str, Any], run_dir: Path) -> Iterator[Tracker]:
    """Yield the tracker that ``logger`` names; an exception inside is passed on to it as a crash."""
    mode = config["logger"]["mode"]
    tracker = {"none": Tracker, "csv": CSVTracker}.get(mode, WandbTracker)(config, run_dir)
    try:
        yield tracker
    except BaseException:
        tracker.finish(failed=True)
        raise
    tracker.finish(failed=False)
