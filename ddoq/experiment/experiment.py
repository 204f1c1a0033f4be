"""From a configuration to the graph of everything it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from ddoq.config.arms import arm_name, is_method, main_arm
from ddoq.errors import ConfigError, did_you_mean
from ddoq.experiment.arms import UNIFORM, quantizer_identity, quantizer_inputs
from ddoq.experiment.entries import Entry, ablations, comparisons, main_table, make_entry
from ddoq.experiment.models import Models
from ddoq.experiment.nodes import Nodes, make_node, without
from ddoq.experiment.trials import probes, trials
from ddoq.pipeline.graph import Node, unique
from ddoq.pipeline.stages import reaches

Conf = Mapping[str, Any]


class Experiment:
    """Everything that one run asks for.

    Args:
        config: resolved and checked.
        fingerprint: of the data set's files.
        models: finds pretrained models.
    """

    def __init__(self, config: Conf, fingerprint: str, models: Models):
        self.config, self.nodes = config, Nodes(config, fingerprint, models)

    # --- arms --------------------------------------------------------------------------------

    @property
    def main_arm(self) -> dict:
        """What the user composed."""
        return main_arm(self.config)

    @property
    def main_name(self) -> str:
        """Name of the main arm, by what it is made of."""
        return arm_name(self.main_arm)

    def arms(self) -> dict[str, dict]:
        """Return the arms of the main table by name: the baselines, the twin without weights, the
        main arm.
        """
        baselines = self.config["baselines"].items()
        full_data_first = sorted(baselines, key=lambda item: bool(item[1]))
        arms = {name: dict(arm) for name, arm in full_data_first}
        if not is_method(self.main_arm):  # whose images have no masses, or all of them
            twin = {**self.main_arm, "weighting": UNIFORM}
            arms[arm_name(twin)] = twin
        return arms | {self.main_name: self.main_arm}

    def check(self) -> None:
        """Raise ConfigError for a comparison of arms that there are not."""
        arms = list(self.arms())
        for name in self.config["compare"]["arms"] or ():
            if name not in arms:
                remedy = did_you_mean(name, arms)
                raise ConfigError(f"compare.arms: there is no arm '{name}'", remedy)

    # --- students ----------------------------------------------------------------------------

    @cached_property
    def entries(self) -> list[Entry]:
        """Every student of every table."""
        arms = self.arms()
        return [
            *main_table(self.nodes, arms),
            *comparisons(self.nodes, arms),
            *ablations(self.nodes, self.main_arm, self.main_name),
        ]

    # --- what is measured besides ------------------------------------------------------------

    @cached_property
    def curves(self) -> dict[str, Node]:
        """W2 against the number of centroids, for the main arm's quantizer and for random latents,
        by name.
        """
        measure = self.nodes.measure
        if not measure.curve:
            return {}
        arms = {}
        if "random" in self.config["baselines"]:
            arms["random"] = self.config["baselines"]["random"]
        if not is_method(self.main_arm):  # which has no quantizer
            arms[self.main_name.removesuffix("_uniform")] = self.main_arm
        identity = {
            "num_centroids": sorted(set(measure.curve)),
            "num_folds": measure.num_folds,
        }
        curves = {}
        for name, arm in arms.items():
            quantizer = quantizer_identity(self.config, arm, self.nodes.first_seed)
            inputs = quantizer_inputs(self.nodes, arm)
            curves[name] = make_node("curve", identity | quantizer, title=name, **inputs)
        return curves

    @cached_property
    def fidelity(self) -> dict[str, Node]:
        """How each arm's first images look to the teacher, by arm."""
        if not self.nodes.measure.fidelity:
            return {}
        space = self.nodes.measure.space
        inputs = {
            "features": self.nodes.features(space, "measure.space")
            if space
            else self.nodes.teacher_features,
            "index": self.nodes.index,
            **self.nodes.teacher(self.config["teacher"]),
        }
        # once the PNGs were looked at, also where students see the floats of a method
        floats = {"images": "floats"}
        return {
            arm: make_node(
                "fidelity",
                floats if entry.images.stage == "distill" else {},
                title=arm,
                label=entry.label,
                **inputs,
            )
            for arm, entry in self._first_entries().items()
        }

    @cached_property
    def redundancy(self) -> dict[str, Node]:
        """How well a student of each arm's first images knows the next, by arm."""
        if not self.nodes.measure.redundancy:
            return {}
        nodes: dict[str, Node] = {}
        for name, entry in self._first_entries().items():
            arm = self.arms()[name] | {"redraw": True}
            following = make_entry(self.nodes, arm, name, entry.seed + 1, entry.split).label
            identity = without(entry.evaluate.identity, "split")
            inputs = entry.evaluate.inputs
            nodes[name] = make_node("redundancy", identity, name, next=following, **inputs)
        return nodes

    def _first_entries(self) -> dict[str, Entry]:
        """Return the first student of every arm that has images of its own, by arm."""
        first: dict[str, Entry] = {}
        for entry in self.entries:
            if entry.table == "main" and entry.label:
                first.setdefault(entry.arm, entry)
        return first

    # --- the graph ---------------------------------------------------------------------------

    def targets(self, until: str) -> list[Node]:
        """Return the nodes that a run up to the stage ``until`` has to have."""
        everything = [
            self.nodes.audit,
            *probes(self.nodes, self.entries),
            *trials(self.nodes, self.arms()),
            *self.curves.values(),
            *self.fidelity.values(),
            *self.redundancy.values(),
            *(entry.evaluate for entry in self.entries),
        ]
        if reaches(until, "evaluate"):
            return everything
        until = "audit" if until == "index" else until  # to look at the data is both
        return [node for node in unique(everything) if reaches(until, node.stage)]
