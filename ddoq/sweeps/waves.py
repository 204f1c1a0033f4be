"""Waves: a sweep on a cluster goes from stage to stage, with the resources that each of them needs.

Latents want a GPU once for all points, codebooks want cores, images and students want a GPU each.
So the points are submitted several times, up to one stage after the other. What points share is
computed by one job: the others are not submitted in that wave, instead of waiting on a GPU for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddoq.errors import ConfigError
from ddoq.pipeline.stages import STAGES, TABLE
from ddoq.sweeps.points import SweepPoint


@dataclass(frozen=True)
class Wave:
    """Runs up to the stage ``until``, with ``resources`` instead of the launcher's own."""

    until: str
    resources: Mapping[str, Any]


def waves(conf: Mapping[str, Any], until: str) -> list[Wave]:
    """Return the waves of a sweep that ends with the stage ``until``, in the corridor's order;
    the last one reaches it.

    Args:
        conf: ``sweep``, with ``waves``, the stages to stop at, and their ``resources``.
        until: ``run.until``.
    """
    stops = sorted(conf["waves"], key=STAGES.index)
    before = [stage for stage in stops if STAGES.index(stage) < STAGES.index(until)]
    # The rest has the resources of the wave that would end there;
    # a sweep in one piece has the launcher's.
    own = [_stated(conf["resources"][stage]) for stage in before]
    rest = _stated(conf["resources"][TABLE[until].wave]) if stops else {}
    return [Wave(*wave) for wave in zip([*before, until], [*own, rest], strict=True)]


def _stated(resources: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resources.items() if value is not None}


def resources_key(wave: Wave, name: str) -> str:
    """Return the key by which a user sets one of the resources that a wave has."""
    if name in wave.resources:
        return f"sweep.resources.{TABLE[wave.until].wave}.{name}"
    return f"hydra.launcher.{name}"


def check_resources(launcher: Mapping[str, Any], wave: Wave) -> None:
    """Raise ConfigError where a wave asks SLURM for what it cannot use.

    Args:
        launcher: what ``hydra.launcher`` says; other launchers than SLURM's are not looked at.
        wave: with its own resources.
    """
    conf = {**launcher, **wave.resources}
    if "signal_delay_s" not in conf:
        return
    if conf["timeout_min"] * 60 <= conf["signal_delay_s"]:
        raise ConfigError(
            f"hydra.launcher.timeout_min: {conf['timeout_min']} minutes are over when the warning "
            f"of {conf['signal_delay_s']} s before the end is due (up to {wave.until})",
            "raise hydra.launcher.timeout_min, or lower hydra.launcher.signal_delay_s",
        )
    gpus, tasks = conf["gpus_per_node"] or 0, conf["tasks_per_node"]
    if gpus > tasks:
        raise ConfigError(
            "hydra.launcher.gpus_per_node: a process uses one GPU, "
            f"so {gpus - tasks} of {gpus} would idle (up to {wave.until})",
            f"set tasks_per_node={gpus}, in hydra.launcher or in sweep.resources.{wave.until}",
        )


def jobs_of(wave: Wave, points: Sequence[SweepPoint]) -> list[SweepPoint]:
    """Return the points to start in a wave: enough of them to compute everything that is missing.

    A point that reports is started if it lacks anything itself:
    students are many, and jobs share them out.
    """
    covered: set[str] = set()
    chosen = []
    for point in points:
        lacks = {node.key for node in point.missing(wave.until)}
        if lacks if wave.until == "report" else lacks - covered:
            chosen.append(point)
            covered |= lacks
    return chosen
