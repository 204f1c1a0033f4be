"""From a configuration to the graph of everything it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

from ddoq.config.names import arm_name
from ddoq.pipeline.graph import STAGES, Node, unique
from ddoq.stages.models import Models

Conf = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One student of the tables: an arm, its seed, and the nodes behind its accuracy.

    ``table`` is ``main`` (on the test split), ``strength`` or ``weighting`` (both on the validation split);
    ``value`` is what was varied. The full data have no codebook and no images of their own.
    """

    arm: str
    seed: int
    split: str
    table: str
    value: str
    parts: Mapping[str, str]
    strength: float | None
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
        """The list of usable images and their splits."""
        dataset = _without(self.config["dataset"], "root", "download")
        return _node("index", {"dataset": dataset, "fingerprint": self.fingerprint})

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
        return _node("encode", self._encoder_identity(), index=self.index, encoder=self.encoder)

    def _encoder_identity(self) -> dict:
        conf = self.config["encoder"]
        weights = self.models.identify(conf, "encoder.path") if "path" in conf else None
        return {"encoder": _without(conf, "fit", "path"), "weights": weights}

    def model(self, generator: Conf) -> Node | None:
        """The fitted DiT, where the generator is one that ddoq has to fit."""
        if generator.get("fit") is None or generator["path"]:
            return None
        return _node("fit_generator", {"fit": generator["fit"]}, encode=self.encode, index=self.index)

    @cached_property
    def teacher(self) -> Node | None:
        """The classifier that labels, where the labeler asks for one."""
        if self.config["labeler"]["name"] != "teacher":
            return None
        identity = {"student": self.config["student"], "protocol": self._protocol(), "seed": self.first_seed}
        return _node("fit_teacher", identity, index=self.index)

    def _protocol(self) -> dict:
        return _without(self.config["protocol"], "num_seeds", "redraw")

    # --- one arm -----------------------------------------------------------------------------------------------------

    def entry(
        self, arm: Conf, name: str, seed: int, split: str = "test", table: str = "main", value: str = ""
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
        """
        title = name if not value else f"{name} {table}={value}"
        identity = {"student": self.config["student"], "protocol": self._protocol(), "seed": seed, "split": split}
        if not arm:
            evaluate = _node("evaluate", identity, title=title, index=self.index)
            return Entry(name, seed, split, table, value, {}, None, evaluate)
        redraw = self.config["protocol"]["redraw"] or arm.get("redraw")
        draw = seed if redraw else self.first_seed
        quantize = self._quantize(arm, draw, title)
        generate = self._generate(arm["generator"], quantize, draw, title)
        label = _node(
            "label",
            {"weighting": arm["weighting"], "labeler": self.config["labeler"]},
            title=title,
            generate=generate,
            quantize=quantize,
            index=self.index,
            teacher=self.teacher,
        )
        evaluate = _node("evaluate", identity, title=title, index=self.index, label=label)
        parts = {part: arm[part]["name"] for part in ("quantizer", "weighting", "generator")}
        strength = arm["generator"].get("strength")
        return Entry(name, seed, split, table, value, parts, strength, evaluate, quantize, generate, label)

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
        return {
            "quantizer": arm["quantizer"],
            "space": _without(arm.get("space", _LATENTS), "path"),
            "on_small_class": self.config["on_small_class"],
            "seed": draw,
        }

    def features(self, arm: Conf) -> Node | None:
        """The features in which the arm is quantized, where they are not made of its latents."""
        space = arm.get("space", _LATENTS)
        if space["name"] != "features":
            return None
        identity = {
            "encoder": _without(space, "path", "representative"),
            "weights": self.models.identify(space, "space.path"),
        }
        return _node("encode", identity, index=self.index)

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
        identity = {
            "generator": _without(conf, "fit", "path"),
            "seed": draw,
            **self._encoder_identity(),
            "model": self.models.identify(conf, "generator.path") if "path" in conf else None,
        }
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
        return [*self._main_table(), *self._ablations()]

    def _seeds(self, number: int) -> range:
        return range(self.first_seed, self.first_seed + number)

    def _main_table(self) -> Iterator[Entry]:
        for name, arm in self.arms().items():
            for seed in self._seeds(self.config["protocol"]["num_seeds"]):
                yield self.entry(arm, name, seed)

    def _ablations(self) -> Iterator[Entry]:
        conf, arm, seeds = self.config["ablation"], self.main_arm, self._seeds(self.config["ablation"]["num_seeds"])
        if arm["generator"].get("start", "noise") != "noise":  # else there is no strength to vary
            for strength in sorted({*conf["strengths"], arm["generator"]["strength"]} if conf["strengths"] else ()):
                generator = {**arm["generator"], "strength": strength}
                if strength == 0:
                    generator = {"name": "decode", "_target_": "ddoq.generators.Decode"}
                for seed in seeds:
                    yield self.entry(
                        {**arm, "generator": generator}, self.main_name, seed, "validation", "strength", f"{strength:g}"
                    )
        for name, weighting in conf["weightings"].items():
            for seed in seeds:
                yield self.entry({**arm, "weighting": weighting}, self.main_name, seed, "validation", "weighting", name)

    def targets(self, until: str) -> list[Node]:
        """Return the nodes that a run up to the stage ``until`` has to have."""
        last = [*self.curves.values(), *(entry.evaluate for entry in self.entries)]
        if until in ("evaluate", "report"):
            return last
        nodes = unique(last)
        return [node for node in nodes if STAGES.index(node.stage) <= STAGES.index(until)]


#: The space of arms that name none: the baselines.
_LATENTS = {"name": "latents", "_target_": "ddoq.quantizers.space.Latents"}


def _node(stage: str, identity: dict, title: str = "", **inputs: Node | None) -> Node:
    version = import_module(f"ddoq.stages.{stage}").VERSION
    present = {name: node for name, node in inputs.items() if node is not None}
    return Node(stage, version, identity, present, title or stage)


def _without(conf: Conf, *keys: str) -> dict:
    return {key: value for key, value in conf.items() if key not in keys}
