"""What can follow a run, but for W&B."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ddoq.errors import ConfigError
from ddoq.tracking.results import Results


class Tracker:
    """Follows nothing: ``results.jsonl`` and the report are always written without it."""

    def __init__(self, config: Mapping[str, Any], run_dir: Path):
        self.config, self.run_dir = config, run_dir

    def log(self, results: Results) -> None:
        """Take the results of a run, once, when there are all of them."""

    def finish(self, failed: bool) -> None:
        """Close; a crash is shown as crashed."""


class CSVTracker(Tracker):
    """Writes ``results.csv`` beside ``results.jsonl``."""

    def log(self, results: Results) -> None:
        """Write the rows."""
        with (self.run_dir / "results.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, results.rows[0])
            writer.writeheader()
            writer.writerows(results.rows)


class TensorBoardTracker(Tracker):
    """Writes event files below ``tensorboard``: the run's metrics in one folder,
    every student's curve in its own.

    The package ``tensorboard`` itself writes them;
    torch's writer would only put torch in front of it.
    """

    def __init__(self, config: Mapping[str, Any], run_dir: Path):
        super().__init__(config, run_dir)
        try:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            raise ConfigError(
                "logger: the package tensorboard is not installed",
                "pip install 'ddoq[tensorboard]', or set logger=csv",
            ) from None
        self._writer = EventFileWriter

    def log(self, results: Results) -> None:
        """Write everything anew, so that a repeated run does not draw its curves twice."""
        folder = self.run_dir / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self._write(folder / "pipeline", [{"step": 0, **results.summary}], results.figures)
        for student in results.students:
            self._write(folder / student.name, student.curve)

    def _write(self, folder: Path, points: Any, figures: Mapping[str, Path] | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        writer = self._writer(str(folder))
        for point in points:
            values = [
                Summary.Value(tag=tag, simple_value=value)
                for tag, value in point.items()
                if tag != "step"
            ]
            writer.add_event(
                Event(wall_time=time.time(), step=int(point["step"]), summary=Summary(value=values))
            )
        for name, path in (figures or {}).items():
            with Image.open(path) as picture:
                width, height = picture.size
            image = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes()
            )
            value = Summary.Value(tag=name, image=image)
            writer.add_event(Event(wall_time=time.time(), step=0, summary=Summary(value=[value])))
        writer.close()
