"""What can follow a run."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape

from ddoq.config.names import run_name
from ddoq.utils.console import console


class Tracker:
    """Follows nothing: ``results.jsonl`` and the report are always written without it."""

    def __init__(self, config: Mapping[str, Any], run_dir: Path):
        self.config, self.run_dir = config, run_dir

    def log_results(self, rows: list[dict], summary: Mapping[str, float]) -> None:
        """Take the result rows and the summary metrics."""

    def log_figure(self, name: str, path: Path) -> None:
        """Take a picture."""

    def finish(self, failed: bool) -> None:
        """Close; a crash is shown as crashed."""


class CSVTracker(Tracker):
    """Writes ``results.csv`` beside ``results.jsonl``."""

    def log_results(self, rows: list[dict], summary: Mapping[str, float]) -> None:
        """Write the rows."""
        with (self.run_dir / "results.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


class WandbTracker(Tracker):
    """One W&B run per job, with a stable id: a requeued or repeated job continues it.

    An outage costs a warning: whatever W&B raises, the run goes on.
    """

    def __init__(self, config: Mapping[str, Any], run_dir: Path):
        super().__init__(config, run_dir)
        self._run = None
        self._guard(self._start)

    def _start(self) -> None:
        import wandb

        name, logger = run_name(self.config), self.config["logger"]
        self._run = wandb.init(
            project=logger["project"],
            entity=logger["entity"],
            mode=logger["mode"],
            dir=str(self.run_dir),
            id=name.rsplit("-", 1)[1],
            name=name,
            group=self.config["dataset"]["name"],
            job_type="pipeline",
            resume="allow" if logger["mode"] == "online" else None,
            config=dict(self.config),
            settings=wandb.Settings(init_timeout=30, console="off", silent=True),
        )

    def log_results(self, rows: list[dict], summary: Mapping[str, float]) -> None:
        """Log a table and the summary."""

        def log() -> None:
            import wandb

            columns = list(rows[0])
            self._run.log({"results": wandb.Table(columns, [[row[name] for name in columns] for row in rows])})
            self._run.summary.update(dict(summary))

        self._guard(log)

    def log_figure(self, name: str, path: Path) -> None:
        """Log one image."""

        def log() -> None:
            import wandb

            self._run.log({name: wandb.Image(str(path))})

        self._guard(log)

    def finish(self, failed: bool) -> None:
        """End the W&B run with an exit code that tells a crash from a success."""
        self._guard(lambda: self._run.finish(exit_code=int(failed)))

    def _guard(self, action) -> None:
        if self._run is None and action != self._start:
            return
        try:
            action()
        except Exception as error:
            said = escape(f"{type(error).__name__}: {error}")
            console.print(f"[yellow]W&B: {said}; the run goes on without it[/]")
            self._run = None
