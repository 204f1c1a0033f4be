"""Weights & Biases: one run for the job, one for each student,
and the data with what they were made from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

from rich.markup import escape

from ddoq.config.names import run_name
from ddoq.tracking.results import Results, Student, TrackedArtefact
from ddoq.tracking.trackers import Tracker
from ddoq.utils.console import console

#: Seconds that W&B may take to start a run, and to upload what is left at its end.
_CONNECT, _UPLOAD = 15.0, 300.0

_LATER = "the run goes on without it; the same command mirrors it later"

#: Of a student's run, which only holds a curve:
#: the machine and its packages are those of the job's run.
_LIGHT = {
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_save_requirements": False,
    "disable_git": True,
}


class WandbTracker(Tracker):
    """Mirrors a run to W&B, where ids are stable:
    a requeued or repeated job, or student, continues its own run.

    The sweep, or else the data set, is the group. Whatever W&B raises and however long it
    takes, the run goes on. What W&B has missed it gets from the same command later, which
    then computes nothing.
    """

    def __init__(self, config: Mapping[str, Any], run_dir: Path):
        super().__init__(config, run_dir)
        choices = {group: part["name"] for group, part in config.items() if _is_choice(group, part)}
        name = run_name(config)
        self._run = self._start(
            id=name.rsplit("-", 1)[1],
            name=name,
            job_type="pipeline",
            config={**config, "choices": choices},
        )

    def _start(self, light: bool = False, **options: Any) -> Any:
        """Return a new run, ``None`` where W&B cannot be reached."""
        return _guarded(lambda: self._init(light, **options), _CONNECT + 5)

    def _init(self, light: bool, **options: Any) -> Any:
        import wandb

        settings = {
            "init_timeout": _CONNECT,
            "finish_timeout": _UPLOAD,
            "finish_timeout_raises": True,
        }
        quiet = {"console": "off", "silent": True}
        wandb.setup(wandb.Settings(**quiet))
        return wandb.init(
            project=self.config["logger"]["project"],
            entity=self.config["logger"]["entity"],
            group=self.config["sweep"]["name"] or self.config["dataset"]["name"],
            mode=self.config["logger"]["mode"],
            dir=str(self.run_dir.resolve()),
            resume="allow" if self.config["logger"]["mode"] == "online" else None,
            # Never the run that is open already: the job's own, or that of another job.
            reinit="create_new",
            settings=wandb.Settings(**settings, **quiet, **(_LIGHT if light else {})),
            **options,
        )

    def log(self, results: Results) -> None:
        """Log the table, the pictures, the metrics and the data;
        then every student, each in a run of its own.
        """
        if self._run is None:
            return
        _guarded(lambda: self._log_results(results))
        _guarded(lambda: self._log_artefacts(results.codebook, results.distilled))
        for student in results.students if self.config["logger"]["students"] else ():
            run = self._start(
                light=True,
                id=student.key,
                name=student.name,
                job_type="student",
                config=dict(student.config),
            )
            if run is None or not _guarded(
                lambda run=run, student=student: _log_student(run, student), _UPLOAD + 5
            ):
                return

    def _log_results(self, results: Results) -> None:
        import wandb

        columns = list(results.rows[0])
        table = wandb.Table(columns, [[row[name] for name in columns] for row in results.rows])
        pictures = {name: wandb.Image(str(path)) for name, path in results.figures.items()}
        self._run.log({"results": table, **pictures})
        self._run.summary.update(dict(results.summary))
        self._run.config.update(
            {name: dict(part) for name, part in results.columns.items()}, allow_val_change=True
        )

    def _log_artefacts(self, codebook: TrackedArtefact | None, distilled: TrackedArtefact) -> None:
        if codebook is not None:
            # What `use_artifact` does with an artefact that W&B may not have yet, without waiting,
            # and offline, too.
            self._run._log_artifact(
                _wandb_artifact(codebook), aliases=[codebook.key], use_after_commit=True
            )
        self._run.log_artifact(_wandb_artifact(distilled), aliases=[distilled.key])

    def finish(self, failed: bool) -> None:
        """End the W&B run with an exit code that tells a crash from a success."""
        if self._run is None:
            return
        folder = self.run_dir / "wandb"
        then = f"`wandb sync --include-online {folder}` uploads the rest"
        _guarded(lambda: self._run.finish(exit_code=int(failed)), _UPLOAD + 5, then)
        if self.config["logger"]["mode"] == "offline":
            console.print(f"upload     wandb sync {folder}", soft_wrap=True)


def _is_choice(group: str, part: Any) -> bool:
    return group != "sweep" and isinstance(part, Mapping) and "name" in part


def _wandb_artifact(artefact: TrackedArtefact) -> Any:
    """Return W&B's description of a folder.

    Equal contents are one version there; no file is copied here.
    """
    import wandb

    name = re.sub(r"[^\w.-]", "-", artefact.name)
    logged = wandb.Artifact(
        name, artefact.kind, metadata={**artefact.metadata, "key": artefact.key}
    )
    folder = artefact.folder.resolve()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        logged.add_file(
            str(file), name=str(file.relative_to(folder)), policy="immutable", skip_cache=True
        )
    return logged


def _log_student(run: Any, student: Student) -> bool:
    """Fill and end a student's run.

    Steps are stated, so that a run that is continued drops what it has already.
    """
    for point in student.curve:
        run.log(
            {name: value for name, value in point.items() if name != "step"},
            step=int(point["step"]),
        )
    run.summary.update(dict(student.summary))
    run.finish(exit_code=0)
    return True


def _guarded(action: Callable[[], Any], seconds: float = _UPLOAD, then: str = _LATER) -> Any:
    """Return what ``action`` returns; ``None``, with a warning, where it fails or takes too long.

    Not every call into W&B has a time limit of its own, so it is waited for in a thread,
    which may be left behind.
    """
    future: Future = Future()

    def call() -> None:
        try:
            future.set_result(action())
        except BaseException as error:  # W&B may exit
            future.set_exception(error)

    Thread(target=call, daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except TimeoutError as error:
        reason = str(error) or f"no answer within {seconds:.0f} s"
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
    console.print(f"[yellow]W&B: {escape(' '.join(reason.split()))}; {then}[/]", soft_wrap=True)
    return None
