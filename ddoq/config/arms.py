"""What an arm of a comparison is made of.

An arm is a route to a set of images: points that a generator pushes forward, steered by guidances
where it has some, or a method that makes images itself. An empty arm is the full data. The root of
a configuration holds the parts of the main arm in the same places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Conf = Mapping[str, Any]

#: How points are shared out among the classes: equally, or more where the error is larger.
Allocation = Literal["equal", "error"]

#: The groups of what makes points and pushes them forward, and those that such an arm needs.
PUSHED = ("quantizer", "space", "weighting", "generator", "guidance", "selection")
NEEDED = ("quantizer", "weighting", "generator")
#: Every group that a part of an arm may come from.
ARM_PARTS = (*PUSHED, "method")
#: What else an arm may say. ``guidances``: more of them, by any name. ``redraw``: a new set for
#: every student; null, like nothing: as the protocol says.
OPTIONS = {"guidances": dict[str, Any], "allocation": Allocation, "redraw": bool | None}

#: The guidance that is an option of generators, too.
MODE_GUIDANCE = "ddoq.guidances.MGD3"
#: Spaces that are features of images, by a network of their own or by the run's teacher.
FEATURES, TEACHER_FEATURES = "ddoq.encoders.Features", "ddoq.labelers.TeacherFeatures"

#: Quantizers whose points are real latents.
SELECTIONS = ("random", "nearest", "herding", "kcenter", "kmedoids")


def is_full(arm: Conf) -> bool:
    """Tell whether an arm is the training data itself."""
    return not arm


def is_method(arm: Conf) -> bool:
    """Tell whether a method makes the arm's images."""
    return arm.get("method") is not None


def selects(arm: Conf) -> bool:
    """Tell whether an arm's images are chosen among several draws of its points."""
    return not is_method(arm) and arm.get("selection", {}).get("name", "none") != "none"


def is_redrawn(arm: Conf, protocol: Conf) -> bool:
    """Tell whether every student gets a set of its own: what the arm says, else the protocol."""
    own = arm.get("redraw")
    return bool(protocol["redraw"] if own is None else own)


def parts_of(arm: Conf) -> dict[str, Conf]:
    """Return the components that an arm is made of, by group: its method alone, if it has one."""
    parts = ("method",) if is_method(arm) else PUSHED
    return {part: arm[part] for part in parts if part in arm}


def main_arm(config: Conf) -> dict[str, Any]:
    """Return the arm that the root of a configuration describes."""
    parts = parts_of(config)
    if is_method(config):
        return parts
    return parts | {name: config[name] for name in ("guidances", "allocation")}


def named_guidances(arm: Conf) -> dict[str, Conf]:
    """Return the guidances of an arm by where they stand in it: the one of the group, then the
    others by name. An arm of another kind has none.
    """
    own = {"guidance": arm["guidance"]} if arm.get("guidance") else {}
    others = arm.get("guidances") or {}
    return own | {f"guidances.{name}": others[name] for name in sorted(others)}


def guidances_of(arm: Conf) -> list[Conf]:
    """Return the guidances of an arm, in the order of ``named_guidances``."""
    return list(named_guidances(arm).values())


def steered(arm: Conf) -> tuple[Conf, list[Conf]]:
    """Return an arm's generator and the guidances beside it: mode guidance is an option of its own,
    under which images have been kept since before there were others.
    """
    generator, beside = arm["generator"], []
    for guidance in guidances_of(arm):
        if guidance["_target_"] == MODE_GUIDANCE:
            pull = {"mode_guidance": guidance["scale"], "mode_stop": guidance["stop"]}
            generator = {**generator, **pull}
        else:
            beside.append(guidance)
    return generator, beside


def arm_name(arm: Conf) -> str:
    """Return the name of an arm: k-means with weights is ``ddoq``, without ``ddoq_uniform``.

    Any other quantizer gives its own name, with ``_weighted`` behind it where its masses are used.
    Selections of real images (``random``, ``nearest``, ...) name the generator if it does not show
    the images as they are. Another space than that of the latents, a budget shared by error,
    guidances, and what chooses among several draws are named, too. A method gives its own name.

    Args:
        arm: not the full data; or the root of a configuration.
    """
    if is_method(arm):
        return arm["method"]["name"]
    quantizer, weighting, generator = (arm[part]["name"] for part in NEEDED)
    name = "ddoq" if quantizer == "kmeans" else quantizer
    if quantizer in SELECTIONS and generator != "real":
        name += f"_{generator}"
    if arm.get("space", {}).get("name", "latents") != "latents":
        name += f"_{arm['space']['name']}"
    if arm.get("allocation", "equal") != "equal":
        name += f"_by_{arm['allocation']}"
    name = "_".join([name, *(guidance["name"] for guidance in guidances_of(arm))])
    if selects(arm):
        name += f"_{arm['selection']['name']}"
    if quantizer == "kmeans":
        return f"{name}_uniform" if weighting == "uniform" else name
    return name if weighting == "uniform" else f"{name}_weighted"
