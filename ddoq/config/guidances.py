"""What guidances ask of the generator that they steer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ddoq.config.arms import MODE_GUIDANCE, guidances_of, is_full, is_method, named_guidances
from ddoq.config.constructors import constructor

Conf = Mapping[str, Any]
Problems = Iterator[tuple[str, str]]


def _pushed_arms(config: Conf) -> Iterator[tuple[str, Conf]]:
    """Yield every arm that pushes points forward, with what its keys begin with."""
    arms = {"": config} | {f"baselines.{name}.": arm for name, arm in config["baselines"].items()}
    for path, arm in arms.items():
        if not is_full(arm) and not is_method(arm):
            yield path, arm


def guided_arms(config: Conf) -> Iterator[tuple[str, Conf]]:
    """Yield every arm that has guidances, with what its keys begin with."""
    yield from ((path, arm) for path, arm in _pushed_arms(config) if named_guidances(arm))


def needs(guidance: Conf) -> frozenset[str]:
    """Return what the run has to give a guidance: ``teacher``, ``latents``, ``surrogates``."""
    return constructor(guidance["_target_"]).given


def need_teacher(config: Conf) -> bool:
    """Tell whether an arm's guidance looks at images with the run's teacher."""
    guidances = [guidance for _, arm in guided_arms(config) for guidance in guidances_of(arm)]
    return any("teacher" in needs(guidance) for guidance in guidances)


def guidance_problems(config: Conf) -> Problems:
    """Yield cause and remedy of whatever a generator cannot do for the guidances of its arm."""
    for path, arm in _pushed_arms(config):
        generator = arm["generator"]
        for place, guidance in named_guidances(arm).items():
            about = f"{path}{place}: {guidance['name']}"
            if "mode_guidance" in generator:
                yield from _embedding(about, f"{path}{place}", guidance, generator)
                yield from _reach(about, path, guidance, generator)
            else:
                choice = f"+generator@{path}generator=dit" if path else "generator=dit"
                yield (
                    f"{about} steers a diffusion model, and generator={generator['name']} is none",
                    f"set {choice}, or leave it out",
                )
        yield from _twice(path, arm)
        yield from _without_points(path, arm)


def _embedding(about: str, place: str, guidance: Conf, generator: Conf) -> Problems:
    if guidance.get("semantic") and not generator["_target_"].endswith("DiT"):
        yield (
            f"{about} replaces embedded classes, and generator={generator['name']} has prompts",
            f"set {place}.semantic=false",
        )


def _reach(about: str, path: str, guidance: Conf, generator: Conf) -> Problems:
    low, strength = guidance.get("low", 0), generator["strength"]
    if strength <= low:
        yield (
            f"{about} acts above {low:g} of the schedule, "
            f"and {path}generator.strength={strength:g} starts below",
            f"set {path}generator.start=noise {path}generator.strength=1",
        )


def _twice(path: str, arm: Conf) -> Problems:
    """Mode guidance, which is one of the generator's options."""
    own = arm["generator"].get("mode_guidance")
    pulls = [f"{path}generator.mode_guidance"] if own else []
    for place, guidance in named_guidances(arm).items():
        if guidance["_target_"] == MODE_GUIDANCE:
            pulls.append(f"{path}{place}")
    if len(pulls) > 1:
        yield f"{pulls[-1]}: mode guidance is asked for in {pulls[0]}, too", "leave one of them out"


def _without_points(path: str, arm: Conf) -> Problems:
    """What would take the draws that images start from for the points of their classes."""
    generator = arm["generator"]
    guided = bool(named_guidances(arm) or generator.get("mode_guidance"))
    if guided and generator.get("start") == "statistics":
        yield (
            f"{path}generator.start: statistics has draws in place of points, "
            "and guidances steer by points",
            f"set {path}generator.start=noise, or leave guidances and mode_guidance out",
        )
