"""Routes: how an arm of the tables comes to its images.

Every route ends in a set of images before the stage ``label``. What comes after (labels, fidelity,
students, reports) takes the inputs that a route names, and never learns which one it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddoq.config.arms import (
    SELECTIONS,
    TEACHER_FEATURES,
    guidances_of,
    is_method,
    selects,
    steered,
)
from ddoq.config.guidances import needs
from ddoq.config.methods import resolved
from ddoq.experiment.nodes import LATENTS, Nodes, make_node, training_identity, without
from ddoq.pipeline.graph import Node

Conf = Mapping[str, Any]

UNIFORM = {"name": "uniform", "_target_": "ddoq.quantizers.Uniform"}
MASS = {"name": "mass", "_target_": "ddoq.quantizers.Mass"}


@dataclass(frozen=True, kw_only=True)
class Route:
    """The images of an arm.

    Attributes:
        images: the node of the stage that writes them.
        generate: the node of the images of one draw, where points were pushed forward; if several
            draws were made to choose from, the first.
        quantize: the node of the points that they were made from, where there are any.
        about: names of the components, as rows of the tables say them.
        weighting: configuration of how masses become weights.
        strength: of the noise that the points got before they were denoised.
    """

    images: Node
    generate: Node | None = None
    quantize: Node | None = None
    about: Mapping[str, str]
    weighting: Conf
    strength: float | None = None

    @property
    def inputs(self) -> dict[str, Node]:
        """What a later stage needs to read the images, by the names that it knows them by."""
        inputs = {self.images.stage: self.images}
        return inputs | ({"quantize": self.quantize} if self.images is self.generate else {})


def route_of(nodes: Nodes, arm: Conf, draw: int, title: str) -> Route:
    """Return the route of an arm.

    Args:
        nodes: that arms share.
        arm: a ``method``, or ``quantizer``, ``weighting`` and ``generator``.
        draw: the seed of everything that is drawn for its images.
        title: of its nodes, for people.
    """
    return (_distilled if is_method(arm) else _pushed_forward)(nodes, arm, draw, title)


def _distilled(nodes: Nodes, arm: Conf, draw: int, title: str) -> Route:
    """Return the route of a method that optimises images."""
    config = nodes.config
    method = resolved(arm["method"], ipc=config["ipc"], dataset=config["dataset"]["name"])
    identity = {
        "method": method,
        "student": training_identity(config["student"], config["protocol"])["student"],
        "ipc": config["ipc"],
        "normalization": config["protocol"]["normalization"],
        "on_small_class": config["on_small_class"],
        "seed": draw,
    }
    inputs = {"index": nodes.index}
    if method["start"] == "codebook":
        identity |= nodes.encoder_identity
        inputs |= {
            "quantize": _quantize(nodes, {**config, "allocation": "equal"}, draw, title),
            "encoder": nodes.encoder,
        }
    return Route(
        images=make_node("distill", identity, title=title, **inputs),
        about={"method": method["name"]},
        weighting=MASS if method["masses"] else UNIFORM,
    )


def _pushed_forward(nodes: Nodes, arm: Conf, draw: int, title: str) -> Route:
    """Return the route of points that a generator pushes forward."""
    quantize = _quantize(nodes, arm, draw, title)
    generate = _generate(nodes, arm, quantize, draw, title)
    about = {part: arm[part]["name"] for part in ("quantizer", "weighting", "generator")}
    if guidances := guidances_of(arm):
        about["guidance"] = "+".join(guidance["name"] for guidance in guidances)
    images = generate
    if selects(arm):
        images = _select(nodes, arm, generate, draw, title)
        about["selection"] = arm["selection"]["name"]
    return Route(
        images=images,
        generate=generate,
        quantize=quantize,
        about=about,
        weighting=arm["weighting"],
        strength=arm["generator"].get("strength"),
    )


def _quantize(nodes: Nodes, arm: Conf, draw: int, title: str) -> Node:
    config = nodes.config
    folds = nodes.measure.num_folds if draw == nodes.first_seed else 0
    identity = {
        "ipc": config["ipc"],
        "allocation": arm.get("allocation", "equal"),
        "num_folds": folds,
        **quantizer_identity(config, arm, draw),
    }
    return make_node("quantize", identity, title=title, **quantizer_inputs(nodes, arm))


def quantizer_identity(config: Conf, arm: Conf, draw: int) -> dict:
    """Return what an arm's quantizer does, whatever the number of points."""
    space = without(arm.get("space", LATENTS), "path")
    if "representative" in space and arm["quantizer"]["name"] in SELECTIONS:
        space["representative"] = "nearest"  # whatever was asked for
    return {
        "quantizer": arm["quantizer"],
        "space": space,
        "on_small_class": config["on_small_class"],
        "seed": draw,
    }


def quantizer_inputs(nodes: Nodes, arm: Conf) -> dict[str, Node | None]:
    """Return what an arm's points are made from:
    the latents, and features where it has another space.
    """
    return {"encode": nodes.encode, "features": nodes.features(arm.get("space", LATENTS))}


def guidance_inputs(nodes: Nodes, guidances: Sequence[Conf]) -> dict[str, Node]:
    """Return what guidances need that other stages make, by the names that ``generate`` knows."""
    inputs: dict[str, Node] = {}
    for guidance in guidances:
        wanted = needs(guidance)
        if "teacher" in wanted:
            inputs |= nodes.teacher(nodes.config["teacher"])
        if "latents" in wanted:
            inputs["encode"] = nodes.encode
        if "surrogates" in wanted:
            inputs[f"surrogates.{guidance['name']}"] = nodes.surrogates(guidance)
    return inputs


def _generate(nodes: Nodes, arm: Conf, quantize: Node, draw: int, title: str) -> Node:
    generator, guidances = steered(arm)
    inputs = {"quantize": quantize, "index": nodes.index}
    if generator["name"] == "real":
        return make_node("generate", {"generator": generator}, title=title, **inputs)
    inputs |= {"encoder": nodes.encoder, "model": nodes.fitted_generator(generator)}
    inputs["invert"] = nodes.inverted(generator)
    identity = {"seed": draw, **nodes.generator_identity(generator)}
    if guidances:
        identity["guidances"] = [without(guidance, "fit") for guidance in guidances]
        inputs |= guidance_inputs(nodes, guidances)
    return make_node("generate", identity, title=title, **inputs)


def _select(nodes: Nodes, arm: Conf, first: Node, draw: int, title: str) -> Node:
    """Return the choice among several draws, of which the first is that of arms without one."""
    selection = arm["selection"]
    inputs = {"generate": first, "quantize": first.inputs["quantize"], "index": nodes.index}
    for number in range(1, selection["num_draws"]):
        identity = {**first.identity, "draw": number}
        further = make_node("generate", identity, title=f"{title} draw {number}", **first.inputs)
        inputs[f"generate.{number}"] = further
    space = selection.get("space")
    if space is None or space["_target_"] == TEACHER_FEATURES:
        inputs |= nodes.teacher(nodes.config["teacher"])
        inputs["features"] = nodes.teacher_features
    else:
        inputs["features"] = nodes.features(space, "selection.space")
    if "space" not in selection:  # the teacher judges
        inputs["logits"] = nodes.teacher_logits
    identity = {"selection": without(selection, "space"), "seed": draw}
    return make_node("select", identity, title=title, **inputs)
