"""From a configuration to the graph of everything it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

from ddoq.config.names import arm_name
from ddoq.errors import ConfigError, did_you_mean
from ddoq.pipeline.graph import STAGES, Node, unique
from ddoq.stages.check_generator import trials
from ddoq.stages.models import Models, generator_identity
from ddoq.stages.probe import probes
from ddoq.stages.tables import ablations, comparisons, main_table
from ddoq.stages.teachers import members_of, place_of, teacher_identity

Conf = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One student of the tables: an arm, its seed, and the nodes behind its accuracy.

    ``table`` is ``main``, ``student``, ``teacher``, ``labels`` or ``augmentation`` (on the run's split), ``strength``
    or ``weighting`` (on the validation split); ``value`` is what was varied. The full data have no codebook and no
    images of their own.
    """

    arm: str
    seed: int
    split: str
    table: str
    value: str
    parts: Mapping[str, str]
    strength: float | None
    student: str
    labels: str
    evaluate: Node
    quantize: Node | None = None
    generate: Node | None = None
    label: Node | None = None


class Experiment:
    """The nodes of one run.

    Args:
        config: resolved and checked.
        fingerprint: of the data set's files.
        models: finds pretrained models.
    """

    def __init__(self, config: Conf, fingerprint: str, models: Models):
        self.config, self.fingerprint, self.models = config, fingerprint, models
        self.first_seed = 100 * config["seed"]  # students of different runs never share a seed

    # --- shared by all arms ------------------------------------------------------------------------------------------

    @cached_property
    def index(self) -> Node:
        """The list of usable images and their splits.

        Its key does not depend on ``on_bad_image``: whoever chooses ``skip`` after an error does not decode all again.
        """
        dataset = _without(self.config["dataset"], "root", "download") | {"on_bad_image": "error"}
        if dataset["on_leak"] == "error":  # which leaves nothing out, either
            dataset["on_leak"] = "keep"
        return _node("index", {"dataset": dataset, "fingerprint": self.fingerprint})

    @cached_property
    def audit(self) -> Node:
        """What is on both sides of a split; nobody's input."""
        return _node("audit", {}, index=self.index)

    @cached_property
    def encoder(self) -> Node | None:
        """The fitted VAE, where the encoder is one that ddoq has to fit."""
        conf = self.config["encoder"]
        if conf.get("fit") is None or conf["path"]:
            return None
        return _node("fit_encoder", {"fit": conf["fit"]}, index=self.index)

    @cached_property
    def encode(self) -> Node:
        """The latents of the train split."""
        return _node("encode", self.encoder_identity(), index=self.index, encoder=self.encoder)

    def encoder_identity(self) -> dict:
        """Return what an encoder is, its weights by their content."""
        conf = self.config["encoder"]
        weights = self.models.identify(conf, "encoder.path") if "path" in conf else None
        return {"encoder": _without(conf, "fit", "path"), "weights": weights}

    def model(self, generator: Conf) -> Node | None:
        """The fitted DiT, where the generator is one that ddoq has to fit."""
        if generator.get("fit") is None or generator["path"]:
            return None
        return _node("fit_generator", {"fit": generator["fit"]}, encode=self.encode, index=self.index)

    def teacher(self, conf: Conf) -> dict[str, Node]:
        """The examined teacher of a configuration, as ``teacher``, and the networks of it that ddoq has to fit."""
        fitted = {
            f"fitted.{name}": self._fit_teacher(member) for name, member in members_of(conf) if "protocol" in member
        }
        identity = {"teacher": teacher_identity(conf, self.models, place_of(conf, self.config))}
        return {"teacher": _node("check_teacher", identity, conf["name"], index=self.index, **fitted), **fitted}

    def _fit_teacher(self, conf: Conf) -> Node:
        protocol = (conf["protocol"] or self.config["protocol"]) | {"labels": "hard"}
        identity = self._training(conf["student"] or self.config["student"], protocol) | {"seed": self.first_seed}
        return _node("fit_teacher", identity, index=self.index)

    @staticmethod
    def _training(student: Conf, protocol: Conf) -> dict:
        """What decides a student's weights, its data and its seed apart."""
        if protocol["norm"] and "norm" in student:
            student = {**student, "norm": protocol["norm"]}
        return {"student": student, "protocol": _without(protocol, *_NOT_TRAINING)}

    # --- one arm -----------------------------------------------------------------------------------------------------

    def entry(
        self,
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
            arm: with ``quantizer``, ``weighting`` and ``generator``; empty for the full data. ``redraw`` draws
                codebook and images anew for every student.
            name: of the arm.
            seed: of the student.
            split: the student is measured on.
            table: the entry belongs to.
            value: what was varied.
            change: another ``student``, ``teacher`` or ``protocol`` than the run's.
        """
        conf, title = {**self.config, **(change or {})}, name if not value else f"{name} {table}={value}"
        protocol, student = conf["protocol"], conf["student"]["name"]
        identity = {"seed": seed, "split": split, "ipc": self.config["ipc"] if arm else None}
        if not arm:
            identity |= self._training(conf["student"], protocol | {"labels": "hard"})
            evaluate = _node("evaluate", identity, title=title, index=self.index)
            return Entry(name, seed, split, table, value, {}, None, student, "hard", evaluate)
        redraw = self.config["protocol"]["redraw"] or arm.get("redraw")
        draw = seed if redraw else self.first_seed
        quantize = self._quantize(arm, draw, title)
        generate = self._generate(arm["generator"], quantize, draw, title)
        teacher = self.teacher(conf["teacher"]) if protocol["labels"] != "hard" else {}
        label = self._label(arm, protocol, generate, quantize, teacher, title)
        views = teacher if protocol["labels"] == "soft" else {}
        if protocol["labels"] == "stored":
            views = {"relabel": self._relabel({"generate": generate, "quantize": quantize}, conf, teacher, title)}
        identity |= self._training(conf["student"], protocol)
        evaluate = _node("evaluate", identity, title=title, index=self.index, label=label, **views)
        parts = {part: arm[part]["name"] for part in ("quantizer", "weighting", "generator")}
        strength = arm["generator"].get("strength")
        labels, found = protocol["labels"], (evaluate, quantize, generate, label)
        return Entry(name, seed, split, table, value, parts, strength, student, labels, *found)

    def _label(
        self, arm: Conf, protocol: Conf, generate: Node, quantize: Node, teacher: Mapping[str, Node], title: str
    ) -> Node:
        fixed = protocol["labels"] == "fixed"
        identity = {"weighting": arm["weighting"]} | ({"temperature": protocol["temperature"]} if fixed else {})
        inputs = {"generate": generate, "quantize": quantize, "index": self.index}
        return _node("label", identity, title=title, **inputs, **(teacher if fixed else {}))

    def _relabel(self, images: Mapping[str, Node], conf: Conf, teacher: Mapping[str, Node], title: str) -> Node:
        identity = {
            "protocol": {key: conf["protocol"][key] for key in _OF_VIEWS},
            "student": conf["student"]["name"],
            "ipc": self.config["ipc"],
            "seed": self.first_seed,  # one set of views for all students, as in FKD
        }
        return _node("relabel", identity, title=title, index=self.index, **images, **teacher)

    def _quantize(self, arm: Conf, draw: int, title: str) -> Node:
        folds = self.config["measure"]["num_folds"] if draw == self.first_seed else 0
        identity = {
            "ipc": self.config["ipc"],
            "allocation": arm.get("allocation", "equal"),
            "num_folds": folds,
            **self._quantizer_identity(arm, draw),
        }
        return _node("quantize", identity, title=title, encode=self.encode, features=self.features(arm))

    def _quantizer_identity(self, arm: Conf, draw: int) -> dict:
        space = _without(arm.get("space", _LATENTS), "path")
        if "representative" in space and arm["quantizer"]["name"] in SELECTIONS:
            space["representative"] = "nearest"  # whatever was asked for
        return {
            "quantizer": arm["quantizer"],
            "space": space,
            "on_small_class": self.config["on_small_class"],
            "seed": draw,
        }

    def features(self, arm: Conf) -> Node | None:
        """The features in which the arm is quantized, where they are not made of its latents."""
        space = arm.get("space", _LATENTS)
        if space["name"] == "teacher":
            return self.teacher_features
        if space["name"] != "features":
            return None
        identity = {
            "encoder": _without(space, "path", "representative"),
            "weights": self.models.identify(space, "space.path"),
        }
        return _node("encode", identity, index=self.index)

    @cached_property
    def teacher_features(self) -> Node:
        """The teacher's features of the train split."""
        teacher = self.teacher(self.config["teacher"])
        return _node("encode", {"encoder": {"name": "teacher"}}, title="features", index=self.index, **teacher)

    @cached_property
    def curves(self) -> dict[str, Node]:
        """W2 against the number of centroids, for the main arm's quantizer and for random latents, by name."""
        conf, quantizers = self.config["measure"], {self.main_name.removesuffix("_uniform"): self.main_arm}
        if "random" in self.config["baselines"]:
            quantizers = {"random": self.config["baselines"]["random"]} | quantizers
        identity = {"num_centroids": sorted(set(conf["curve"])), "num_folds": conf["num_folds"]}
        return {
            name: _node(
                "curve",
                identity | self._quantizer_identity(arm, self.first_seed),
                title=name,
                encode=self.encode,
                features=self.features(arm),
            )
            for name, arm in (quantizers.items() if conf["curve"] else ())
        }

    def _generate(self, conf: Conf, quantize: Node, draw: int, title: str) -> Node:
        if conf["name"] == "real":
            return _node("generate", {"generator": conf}, title=title, quantize=quantize, index=self.index)
        identity = {"seed": draw, **self.encoder_identity(), **generator_identity(conf, self.models)}
        return _node(
            "generate",
            identity,
            title=title,
            quantize=quantize,
            index=self.index,
            encoder=self.encoder,
            model=self.model(conf),
        )

    # --- the tables --------------------------------------------------------------------------------------------------

    @property
    def main_arm(self) -> dict:
        """What the user composed."""
        return {part: self.config[part] for part in ("quantizer", "space", "allocation", "weighting", "generator")}

    @property
    def main_name(self) -> str:
        """Name of the main arm, by what it is made of."""
        return self._name(self.main_arm)

    @staticmethod
    def _name(arm: Conf) -> str:
        return arm_name(arm)

    def arms(self) -> dict[str, dict]:
        """Return the arms of the main table by name: the baselines, the twin without weights, the main arm."""
        baselines = sorted(self.config["baselines"].items(), key=lambda item: bool(item[1]))  # the full data first
        arms = {name: dict(arm) for name, arm in baselines}
        uniform = {"name": "uniform", "_target_": "ddoq.quantizers.Uniform"}
        twin = {**self.main_arm, "weighting": uniform}
        return arms | {self._name(twin): twin} | {self.main_name: self.main_arm}

    @cached_property
    def entries(self) -> list[Entry]:
        """Every student of every table."""
        return [*main_table(self), *comparisons(self), *ablations(self)]

    @cached_property
    def fidelity(self) -> dict[str, Node]:
        """How each arm's first images look to the teacher, by arm."""
        first = {}
        for entry in self.entries if self.config["measure"]["fidelity"] else ():
            if entry.table == "main" and entry.label:
                first.setdefault(entry.arm, entry.label)
        inputs = {"index": self.index, **self.teacher(self.config["teacher"])} if first else {}
        return {
            arm: _node("fidelity", {}, title=arm, label=label, features=self.teacher_features, **inputs)
            for arm, label in first.items()
        }

    def seeds(self, number: int) -> range:
        """Return the seeds of so many students."""
        return range(self.first_seed, self.first_seed + number)

    def check(self) -> None:
        """Raise ConfigError for a comparison of arms that there are not."""
        arms = list(self.arms())
        for name in self.config["compare"]["arms"] or ():
            if name not in arms:
                raise ConfigError(f"compare.arms: there is no arm '{name}'", did_you_mean(name, arms))

    def targets(self, until: str) -> list[Node]:
        """Return the nodes that a run up to the stage ``until`` has to have."""
        last = [
            *probes(self),
            *trials(self),
            *self.curves.values(),
            *self.fidelity.values(),
            *(entry.evaluate for entry in self.entries),
        ]
        if until in ("evaluate", "report"):
            return [self.audit, *last]
        until = "audit" if until == "index" else until  # to look at the data is both
        nodes = unique([self.audit, *last])
        return [node for node in nodes if STAGES.index(node.stage) <= STAGES.index(until)]


#: What says how many students there are and how they are reported, not how one is trained.
_NOT_TRAINING = ("num_seeds", "redraw", "source", "selection")
#: What decides which views there are.
_OF_VIEWS = ("epochs", "num_steps", "batch_size", "augmentation", "weights", "rules", "image_size", "normalization")

#: Quantizers whose points are latents: these stand for themselves in any space.
SELECTIONS = ("random", "nearest", "herding", "kcenter", "kmedoids")

#: The space of arms that name none: the baselines.
_LATENTS = {"name": "latents", "_target_": "ddoq.quantizers.space.Latents"}


def _node(stage: str, identity: dict, title: str = "", **inputs: Node | None) -> Node:
    module = import_module(f"ddoq.stages.{stage}")
    present = {name: node for name, node in inputs.items() if node is not None}
    return Node(stage, module.VERSION, identity, present, title or stage, getattr(module, "REQUIRED", ()))


def _without(conf: Conf, *keys: str) -> dict:
    return {key: value for key, value in conf.items() if key not in keys}
