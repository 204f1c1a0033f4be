"""The points of a sweep: one run each, checked and planned before the first of them is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ddoq.config.explain import explain
from ddoq.config.names import run_name
from ddoq.errors import ConfigError, DdoqError, together
from ddoq.job import Job, prepare
from ddoq.pipeline.graph import Node
from ddoq.pipeline.plans import PLAN, plan
from ddoq.preflight import check_data, check_missing
from ddoq.utils.io import read_json

#: Composes the resolved configuration of one point from its overrides.
Compose = Callable[[Sequence[str]], Mapping[str, Any]]


@dataclass(frozen=True)
class SweepPoint:
    """One run of a sweep.

    Attributes:
        overrides: that make it.
        swept: those of them that differ between the points of the sweep; what people know it by.
        job: checked and planned.
    """

    overrides: tuple[str, ...]
    swept: tuple[str, ...]
    job: Job

    @cached_property
    def name(self) -> str:
        """Name of the run's folder."""
        return run_name(self.job.config)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.job.paths.outputs / "runs" / self.name

    def __str__(self) -> str:
        return " ".join(self.swept) or self.name

    def is_reported(self) -> bool:
        """Tell whether the run's folder has the report of just these artefacts,
        or is not to have one.
        """
        if self.job.run.until != "report":
            return True
        try:
            reported = {step["key"] for step in read_json(self.folder / PLAN)}
        except (OSError, ValueError, KeyError, TypeError):
            return False
        files = [self.folder / name for name in ("results.jsonl", "report.html", "distilled")]
        return reported == {step.node.key for step in self.job.steps} and all(
            file.exists() for file in files
        )

    def missing(self, until: str) -> list[Node]:
        """Return what the store lacks for the run up to a stage, as of now."""
        steps = plan(self.job.experiment.targets(until), self.job.store)
        return [step.node for step in steps if step.state == "miss"]


def expand(lists: Sequence[Sequence[str]], compose: Compose) -> list[SweepPoint]:
    """Return the points of a sweep, each run once.

    Raises:
        DdoqError: for the points that are wrong, by number and by what was swept;
            nothing has been started.
    """
    common = set.intersection(*map(set, lists))
    fingerprints: dict[str, str] = {}
    points: dict[str, SweepPoint] = {}
    wrong: dict[str, DdoqError] = {}
    for number, overrides in enumerate(lists, 1):
        swept = tuple(override for override in overrides if override not in common)
        try:
            job = prepare(compose(overrides), fingerprints=fingerprints)
            check_missing(job.config, job.models, job.missing)
            if job.store.has(job.experiment.nodes.index):
                check_data(job.experiment, job.dataset, job.models, job.store)
            points.setdefault(run_name(job.config), SweepPoint(tuple(overrides), swept, job))
        except Exception as error:
            point = (
                f"point {number} of {len(lists)}: {' '.join(swept)}" if swept else "the only point"
            )
            wrong[point] = error if isinstance(error, DdoqError) else explain(error)
    if wrong:
        cause, remedy = together(wrong)
        raise ConfigError(cause, f"{remedy} (nothing was started)")
    return list(points.values())
