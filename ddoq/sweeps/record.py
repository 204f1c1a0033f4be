"""What is written about a sweep: ``outputs/sweeps/<name>/sweep.json``,
by which tables and views find its runs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ddoq.pipeline.keys import digest
from ddoq.pipeline.provenance import provenance
from ddoq.pipeline.status import SWEEP
from ddoq.sweeps.points import SweepPoint
from ddoq.utils.io import write_json


def sweep_name(points: Sequence[SweepPoint]) -> str:
    """Return ``sweep.name``, or a name that the same points always give:
    readable first, unique by their runs.
    """
    config = points[0].job.config
    if config["sweep"]["name"]:
        return config["sweep"]["name"]
    datasets = "-".join(dict.fromkeys(point.job.config["dataset"]["name"] for point in points))
    return (
        f"{datasets[:60]}-{len(points)}points-{digest(sorted(point.name for point in points))[:8]}"
    )


def write_record(folder: Path, points: Sequence[SweepPoint]) -> None:
    """Write the record of a sweep that is about to start."""
    write_json(
        folder / SWEEP,
        {
            "name": folder.name,
            "command": " ".join(["ddoq", *sys.argv[1:]]),
            "created": round(time.time(), 3),
            "pid": os.getpid(),
            "until": points[0].job.run.until,
            "points": [{"run": point.name, "overrides": list(point.swept)} for point in points],
            "provenance": provenance(),
        },
    )
