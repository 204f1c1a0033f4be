"""The nodes that the arms of a run share, and what stands for its components in keys."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from ddoq.config.arms import FEATURES, TEACHER_FEATURES
from ddoq.config.settings import measure_of
from ddoq.experiment.models import Models, generator_identity
from ddoq.experiment.teachers import members_of, place_of, teacher_identity
from ddoq.pipeline.graph import Node
from ddoq.pipeline.stages import TABLE

Conf = Mapping[str, Any]

#: The space of arms that name none: the baselines.
LATENTS = {"name": "latents", "_target_": "ddoq.quantizers.space.Latents"}
#: What says how many students there are and how they are reported, not how one is trained.
_NOT_TRAINING = ("num_seeds", "redraw", "source", "selection")
#: Of a generator's options, those that inversions do not depend on.
_AFTER_INVERSION = ("guidance_scale", "mode_guidance", "mode_stop", "num_sets")


def make_node(stage: str, identity: dict, title: str = "", **inputs: Node | None) -> Node:
    """Return a node of a stage as the table of stages has it;
    inputs that are ``None`` are left out.
    """
    about = TABLE[stage]
    present = {name: node for name, node in inputs.items() if node is not None}
    return Node(
        stage=stage,
        version=about.version,
        identity=identity,
        inputs=present,
        title=title or stage,
        required=about.required,
    )


def without(conf: Conf, *keys: str) -> dict:
    """Return a configuration without some of its keys."""
    return {key: value for key, value in conf.items() if key not in keys}


def training_identity(student: Conf, protocol: Conf) -> dict:
    """Return what decides a student's weights, its data and its seed apart."""
    if protocol["norm"] and "norm" in student:
        student = {**student, "norm": protocol["norm"]}
    return {"student": student, "protocol": without(protocol, *_NOT_TRAINING)}


class Nodes:
    """The nodes of one run that do not depend on an arm.

    Args:
        config: resolved and checked.
        fingerprint: of the data set's files.
        models: finds pretrained models.
    """

    def __init__(self, config: Conf, fingerprint: str, models: Models):
        self.config, self.fingerprint, self.models = config, fingerprint, models
        self.measure = measure_of(config)
        self.first_seed = 100 * config["seed"]  # students of different runs never share a seed

    def seeds(self, number: int) -> range:
        """Return the seeds of so many students."""
        return range(self.first_seed, self.first_seed + number)

    # --- data --------------------------------------------------------------------------------

    @cached_property
    def index(self) -> Node:
        """The list of usable images and their splits.

        Its key does not depend on ``on_bad_image``: whoever chooses ``skip`` after an error does
        not decode all again.
        """
        dataset = without(self.config["dataset"], "root", "download") | {"on_bad_image": "error"}
        if dataset["on_leak"] == "error":  # which leaves nothing out, either
            dataset["on_leak"] = "keep"
        return make_node("index", {"dataset": dataset, "fingerprint": self.fingerprint})

    @cached_property
    def audit(self) -> Node:
        """What is on both sides of a split; nobody's input."""
        return make_node("audit", {}, index=self.index)

    # --- encoder, and the spaces of quantizers -----------------------------------------------

    @cached_property
    def encoder(self) -> Node | None:
        """The fitted VAE, where the encoder is one that ddoq has to fit."""
        conf = self.config["encoder"]
        if conf.get("fit") is None or conf["path"]:
            return None
        return make_node("fit_encoder", {"fit": conf["fit"]}, index=self.index)

    @cached_property
    def encode(self) -> Node:
        """The latents of the train split."""
        inputs = {"index": self.index, "encoder": self.encoder}
        return make_node("encode", self.encoder_identity, **inputs)

    @cached_property
    def encoder_identity(self) -> dict:
        """What the encoder is, its weights by their content."""
        conf = self.config["encoder"]
        weights = self.models.identify(conf, "encoder.path") if "path" in conf else None
        return {"encoder": without(conf, "fit", "path"), "weights": weights}

    def features(self, space: Conf, key: str = "space") -> Node | None:
        """Return the features of the train split that a space has, where they are not made of the
        latents; ``key``: where it stands.
        """
        if space["_target_"] == TEACHER_FEATURES:
            return self.teacher_features
        if space["_target_"] != FEATURES:
            return None
        identity = {
            "encoder": without(space, "path", "representative"),
            "weights": self.models.identify(space, f"{key}.path"),
        }
        return make_node("encode", identity, index=self.index)

    @cached_property
    def teacher_features(self) -> Node:
        """The teacher's features of the train split."""
        return self._of_teacher("teacher", "features")

    @cached_property
    def teacher_logits(self) -> Node:
        """The teacher's logits of the train split."""
        return self._of_teacher("teacher_logits", "logits")

    def _of_teacher(self, name: str, title: str) -> Node:
        inputs = {"index": self.index, **self.teacher(self.config["teacher"])}
        return make_node("encode", {"encoder": {"name": name}}, title=title, **inputs)

    # --- teachers ----------------------------------------------------------------------------

    def teacher(self, conf: Conf) -> dict[str, Node]:
        """Return the examined teacher of a configuration, as ``teacher``, and the networks of it
        that ddoq has to fit.
        """
        fitted = {
            f"fitted.{name}": self._fit_teacher(member)
            for name, member in members_of(conf)
            if "protocol" in member
        }
        place = place_of(conf, self.config)
        identity = {"teacher": teacher_identity(conf, self.models, place)}
        inputs = {"index": self.index, **fitted}
        return {"teacher": make_node("check_teacher", identity, conf["name"], **inputs), **fitted}

    def _fit_teacher(self, conf: Conf) -> Node:
        protocol = (conf["protocol"] or self.config["protocol"]) | {"labels": "hard"}
        identity = training_identity(conf["student"] or self.config["student"], protocol)
        return make_node("fit_teacher", identity | {"seed": self.first_seed}, index=self.index)

    # --- generators --------------------------------------------------------------------------

    def fitted_generator(self, generator: Conf) -> Node | None:
        """Return the fitted DiT, where the generator is one that ddoq has to fit."""
        if generator.get("fit") is None or generator["path"]:
            return None
        inputs = {"encode": self.encode, "index": self.index}
        return make_node("fit_generator", {"fit": generator["fit"]}, **inputs)

    def surrogates(self, guidance: Conf) -> Node:
        """Return the networks at several points of a training that a guidance asks about images."""
        protocol = self.config["protocol"]
        identity = {
            "fit": guidance["fit"],
            "student": training_identity(self.config["student"], protocol)["student"],
            "normalization": protocol["normalization"],
        }
        return make_node("fit_surrogates", identity, index=self.index)

    def inverted(self, generator: Conf) -> Node | None:
        """Return the statistics of inverted latents, where a generator starts from them."""
        if generator.get("start") != "statistics":
            return None
        identity = generator_identity(generator, self.models)
        identity["generator"] = without(identity["generator"], *_AFTER_INVERSION)
        inputs = {"encode": self.encode, "index": self.index}
        inputs["model"] = self.fitted_generator(generator)
        return make_node("invert", identity, generator["name"], **inputs)

    def generator_identity(self, conf: Conf) -> dict:
        """Return what a generator and the encoder that it decodes with are."""
        return {**self.encoder_identity, **generator_identity(conf, self.models)}
