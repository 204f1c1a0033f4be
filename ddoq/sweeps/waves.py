"""Waves: a sweep on a cluster goes from stage to stage, with the resources that each of them needs.

Latents want a GPU once for all points, codebooks want cores, images and students want a GPU each. So the points are
submitted several times, up to one stage after the other. What points share is computed by one job: the others are not
submitted in that wave, instead of waiting on a GPU for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddoq.errors import ConfigError, did_you_mean
from ddoq.pipeline.graph import STAGES
from ddoq.sweeps.points import Point


@dataclass(frozen=True)
class Wave:
    """Runs up to the stage ``until``, with ``resources`` instead of the launcher's own."""

    until: str
    resources: Mapping[str, Any]


def waves(conf: Mapping[str, Mapping[str, Any]], until: str) -> list[Wave]:
    """Return the waves of a sweep that ends with the stage ``until``, in the corridor's order; the last one reaches it.

    Args:
        conf: resources by the last stage that they serve, overrides of ``hydra.launcher``; may be empty.
        until: ``run.until``.

    Raises:
        ConfigError: there is no such stage.
    """
    for stage in conf:
        if stage not in STAGES:
            raise ConfigError(f"sweep.waves.{stage}: there is no such stage", did_you_mean(stage, STAGES))
    stages = sorted((stage for stage in conf if conf[stage] is not None), key=STAGES.index)
    found = [Wave(stage, conf[stage]) for stage in stages if STAGES.index(stage) < STAGES.index(until)]
    last = next((stage for stage in stages if STAGES.index(stage) >= STAGES.index(until)), None)
    # What comes behind the last stage that is named has no needs of its own.
    resources = conf[last] if last else (conf[stages[-1]] if stages else {})
    return [*found, Wave(until, resources)]


def jobs_of(wave: Wave, points: Sequence[Point], last: bool) -> list[Point]:
    """Return the points to start in a wave: enough of them to compute everything that is missing.

    In the last wave a point is started if it lacks anything itself, since its job also writes its report.
    """
    covered: set[str] = set()
    chosen = []
    for point in points:
        lacks = {node.key for node in point.missing(wave.until)}
        if lacks if last else lacks - covered:
            chosen.append(point)
            covered |= lacks
    return chosen
