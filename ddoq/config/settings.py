"""The sections of a configuration that say what a run does and how, as objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddoq.config.schema import MeasureConf, TrainerConf


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is done. ``from_stage``: ``run.from``. See ``ddoq.config.schema.RunConf``."""

    until: str
    from_stage: str | None
    plan_only: bool
    quiet: bool
    fetch: bool


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Where things lie. ``data``, ``models``: searched in order; downloads go into the first."""

    data: tuple[Path, ...]
    models: tuple[Path, ...]
    outputs: Path

    @property
    def store(self) -> Path:
        """The folder of the artefacts."""
        return self.outputs / "store"


def run_of(config: Mapping[str, Any]) -> Run:
    """Return the section ``run`` of a checked configuration."""
    section = dict(config["run"])
    return Run(from_stage=section.pop("from"), **section)


def paths_of(config: Mapping[str, Any]) -> Paths:
    """Return the section ``paths`` of a checked configuration, after ``expand_paths``."""
    section = config["paths"]
    data, models = _folders(section["data"]), _folders(section["models"])
    return Paths(data=data, models=models, outputs=Path(section["outputs"]))


def trainer_of(config: Mapping[str, Any]) -> TrainerConf:
    """Return the section ``trainer`` of a checked configuration."""
    return TrainerConf(**config["trainer"])


def measure_of(config: Mapping[str, Any]) -> MeasureConf:
    """Return the section ``measure`` of a checked configuration."""
    return MeasureConf(**config["measure"])


def _folders(value: str | list[str]) -> tuple[Path, ...]:
    folders = [value] if isinstance(value, str) else value
    return tuple(Path(folder) for folder in folders)
