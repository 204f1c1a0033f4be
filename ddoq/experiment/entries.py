"""Which students a run trains, and the chain of nodes behind each: the entries of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ddoq.config.arms import is_method, is_redrawn
from ddoq.config.constructors import constructor
from ddoq.experiment.arms import Route, route_of
from ddoq.experiment.nodes import Nodes, make_node, training_identity
from ddoq.pipeline.graph import Node

Conf = Mapping[str, Any]

_AUGMENTATION = "ddoq.evaluation.augment.Augmentation"
#: What decides which views there are.
_OF_VIEWS = (
    "epochs",
    "num_steps",
    "batch_size",
    "augmentation",
    "weights",
    "rules",
    "image_size",
    "normalization",
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One student of the tables: an arm, its seed, and the nodes behind its accuracy.

    Attributes:
        arm: its name.
        seed: of the student.
        split: on which it is measured.
        table: ``main``, ``student``, ``teacher``, ``labels``, ``augmentation`` or ``pixels`` (on
            the run's split), ``strength`` or ``weighting`` (on the validation split).
        value: what was varied.
        student: its name.
        labels: how the images are labelled.
        evaluate: the node of its accuracy.
        route: how the arm came to its images; the full data have none of their own.
        label: the node of the distilled data set.
    """

    arm: str
    seed: int
    split: str
    table: str
    value: str
    student: str
    labels: str
    evaluate: Node
    route: Route | None = None
    label: Node | None = None

    @property
    def about(self) -> Mapping[str, str]:
        """Names of the components that made the images; none for the full data."""
        return self.route.about if self.route else {}

    @property
    def images(self) -> Node | None:
        """The node of the images, before they have weights."""
        return self.route and self.route.images

    @property
    def generate(self) -> Node | None:
        """The node of a generator's images, where one made them."""
        return self.route and self.route.generate

    @property
    def quantize(self) -> Node | None:
        """The node of the points, where the images were made from any."""
        return self.route and self.route.quantize


def make_entry(
    nodes: Nodes,
    arm: Conf,
    name: str,
    seed: int,
    split: str,
    table: str = "main",
    value: str = "",
    change: Conf | None = None,
) -> Entry:
    """Return the chain of an arm for one student.

    Args:
        nodes: that arms share.
        arm: how its images are made; empty for the full data. ``redraw`` makes them anew for every
            student.
        name: of the arm.
        seed: of the student.
        split: the student is measured on.
        table: the entry belongs to.
        value: what was varied.
        change: another ``student``, ``teacher`` or ``protocol`` than the run's; ``pixels``: that
            students see the PNGs of a method's images and not its floats.
    """
    conf = {**nodes.config, **(change or {})}
    title = name if not value else f"{name} {table}={value}"
    about = {"arm": name, "seed": seed, "split": split, "table": table, "value": value}
    about["student"] = conf["student"]["name"]
    if not arm:
        return Entry(
            **about, labels="hard", evaluate=_on_full_data(nodes, conf, seed, split, title)
        )
    protocol = conf["protocol"]
    draw = seed if is_redrawn(arm, nodes.config["protocol"]) else nodes.first_seed
    route = route_of(nodes, arm, draw, title)
    teacher = nodes.teacher(conf["teacher"]) if protocol["labels"] != "hard" else {}
    label = _label(nodes, route, protocol, teacher, title)
    inputs = {"index": nodes.index, "label": label}
    if protocol["labels"] == "soft":
        inputs |= teacher
    if protocol["labels"] == "stored":
        inputs["relabel"] = _relabel(nodes, route, conf, teacher, title)
    identity = {"seed": seed, "split": split, "ipc": nodes.config["ipc"]}
    identity |= training_identity(conf["student"], protocol)
    identity |= {"pixels": conf["pixels"]} if "pixels" in conf else {}
    evaluate = make_node("evaluate", identity, title=title, **inputs)
    return Entry(**about, labels=protocol["labels"], evaluate=evaluate, route=route, label=label)


def _on_full_data(nodes: Nodes, conf: Conf, seed: int, split: str, title: str) -> Node:
    identity = {"seed": seed, "split": split, "ipc": None}
    identity |= training_identity(conf["student"], conf["protocol"] | {"labels": "hard"})
    return make_node("evaluate", identity, title=title, index=nodes.index)


def _label(
    nodes: Nodes, route: Route, protocol: Conf, teacher: Mapping[str, Node], title: str
) -> Node:
    identity, inputs = {"weighting": route.weighting}, {**route.inputs, "index": nodes.index}
    if protocol["labels"] == "fixed":
        identity["temperature"] = protocol["temperature"]
        inputs |= teacher
    return make_node("label", identity, title=title, **inputs)


def _relabel(
    nodes: Nodes, route: Route, conf: Conf, teacher: Mapping[str, Node], title: str
) -> Node:
    identity = {
        "protocol": {key: conf["protocol"][key] for key in _OF_VIEWS},
        "student": conf["student"]["name"],
        "ipc": nodes.config["ipc"],
        "seed": nodes.first_seed,  # one set of views for all students, as in FKD
    }
    inputs = {"index": nodes.index, **route.inputs, **teacher}
    return make_node("relabel", identity, title=title, **inputs)


# --- the tables ------------------------------------------------------------------------------


def main_table(nodes: Nodes, arms: Mapping[str, Conf]) -> Iterator[Entry]:
    """Yield every arm with every seed."""
    for name, arm in arms.items():
        for seed in nodes.seeds(nodes.config["protocol"]["num_seeds"]):
            yield make_entry(nodes, arm, name, seed, nodes.config["split"])


def comparisons(nodes: Nodes, arms: Mapping[str, Conf]) -> Iterator[Entry]:
    """Yield the same arms with other students, teachers, labels, without augmentation, on PNGs."""
    conf, protocol, split = (nodes.config[name] for name in ("compare", "protocol", "split"))
    compared = {name: arm for name, arm in arms.items() if name in (conf["arms"] or arms)}
    for table, changes in _changes(conf, protocol).items():
        for name, arm in compared.items():
            for value, change in changes.items() if _takes_part(arm, table) else ():
                for seed in nodes.seeds(protocol["num_seeds"]):
                    yield make_entry(nodes, arm, name, seed, split, table, value, change)


def _takes_part(arm: Conf, table: str) -> bool:
    """Tell whether an arm is compared: the full data are only ever trained on with hard labels,
    and only methods make other images than PNGs.
    """
    return is_method(arm) if table == "pixels" else bool(arm) or table == "student"


def _changes(conf: Conf, protocol: Conf) -> dict[str, dict[str, Conf]]:
    """Return what every table of comparisons changes, by its values."""
    soft = protocol if protocol["labels"] != "hard" else {**protocol, "labels": "soft"}
    plain = {
        **protocol,
        "augmentation": constructor(_AUGMENTATION).defaults(),
    }
    labels = {name: {"protocol": {**protocol, "labels": name}} for name in conf["labels"]}
    return {
        "student": {name: {"student": student} for name, student in conf["students"].items()},
        "teacher": {
            name: {"teacher": teacher, "protocol": soft}
            for name, teacher in conf["teachers"].items()
        },
        "labels": labels,
        "augmentation": {"full": {}, "none": {"protocol": plain}} if conf["augmentation"] else {},
        "pixels": {"floats": {}, "pngs": {"pixels": "pngs"}} if conf["pixels"] else {},
    }


def ablations(nodes: Nodes, arm: Conf, name: str) -> Iterator[Entry]:
    """Yield an arm that pushes points forward at other strengths and with other weightings, on the
    validation split.
    """
    conf = nodes.config["ablation"]
    if is_method(arm):  # which has neither
        return
    varied = [("strength", f"{strength:g}", other) for strength, other in _at_strengths(conf, arm)]
    for value, weighting in conf["weightings"].items():
        varied.append(("weighting", value, {**arm, "weighting": weighting}))
    for table, value, other in varied:
        for seed in nodes.seeds(conf["num_seeds"]):
            yield make_entry(nodes, other, name, seed, "validation", table, value)


def _at_strengths(conf: Conf, arm: Conf) -> Iterator[tuple[float, Conf]]:
    """Yield an arm at every strength; nothing where it has none to vary."""
    if arm["generator"].get("start", "noise") == "noise" or not conf["strengths"]:
        return
    for strength in sorted({*conf["strengths"], arm["generator"]["strength"]}):
        change = {"generator": {**arm["generator"], "strength": strength}}
        if strength == 0:  # nothing is sampled, nor guided, and all draws are alike
            decode = {"name": "decode", "_target_": "ddoq.generators.Decode"}
            change = {"generator": decode, "guidance": {}, "guidances": {}, "selection": {}}
        yield strength, {**arm, **change}
