"""What the store says about one run beside its rows: data, images, curves, models, cost by stage.

Nothing is computed that a manifest does not say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ddoq.experiment import Entry, Experiment
from ddoq.pipeline.graph import Node, Step, unique
from ddoq.pipeline.stages import STAGES
from ddoq.pipeline.store import Store
from ddoq.report.groups import Group
from ddoq.report.page import Report
from ddoq.report.pictures import Picture, Strip, class_strips, heaviest
from ddoq.stages.files import PER_IMAGE, START

#: What an index says of its images since a later day than its version,
#: and what it stands for where it is silent.
_SINCE = {
    "recognised": [],
    "ignored": {},
    "in_several_classes": [],
    "num_in_several_classes": 0,
    "num_deep": 0,
}
#: Stages whose facts are those of a model.
_OF_MODELS = ("fit_teacher", "check_teacher", "probe")
_CLASSES_SHOWN, _IMAGES_SHOWN, _ARMS_SHOWN = 20, 20, 12  # classes, images per class, images per arm

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """One finished run.

    Attributes:
        experiment: its graph.
        store: where its artefacts are.
        steps: its plan, from before it started.
        command: that made it, where it was started by one.
    """

    experiment: Experiment
    store: Store
    steps: Sequence[Step]
    command: str = ""

    @property
    def config(self) -> Facts:
        """The resolved configuration."""
        return self.experiment.config

    @property
    def main_arm(self) -> str:
        """The name of what the user composed."""
        return self.experiment.main_name

    @cached_property
    def main(self) -> Entry:
        """The main arm's first student."""
        return next(e for e in self.experiment.entries if e.arm == self.main_arm)

    @property
    def distilled(self) -> Path:
        """The folder of the main arm's first distilled set."""
        return self.store.path(self.main.label)

    def facts(self, node: Node) -> Facts:
        """Return what an artefact's manifest says."""
        return self.store.manifest(node)["facts"]

    # --- data and images ----------------------------------------------------------------------

    @cached_property
    def index(self) -> Facts:
        """What was found in the data set's files."""
        return _SINCE | self.facts(self.experiment.nodes.index)

    @property
    def leaks(self) -> list[Facts]:
        """What splits have in common."""
        return self.facts(self.experiment.nodes.audit)["leaks"]

    @cached_property
    def pictures(self) -> list[Strip]:
        """The first images of the main arm, class by class."""
        return class_strips(self.distilled, _CLASSES_SHOWN, _IMAGES_SHOWN)

    def gallery(self) -> list[Strip]:
        """Return one strip per arm and strength: the heaviest image of the first classes."""
        folders: dict[str, Path] = {}
        for entry in self.experiment.entries:
            name = entry.arm if entry.table == "main" else f"strength {entry.value}"
            if entry.label is not None and entry.table in ("main", "strength"):
                folders.setdefault(name, self.store.path(entry.label))
        return [heaviest(folder, name, _ARMS_SHOWN) for name, folder in folders.items()]

    # --- what was measured --------------------------------------------------------------------

    def per_class(self) -> dict[str, list[list[float | None]]]:
        """Return the top-1 of every class, by arm of the main table and seed."""
        arms: dict[str, list[list[float | None]]] = {}
        for entry in self._main_entries():
            arms.setdefault(entry.arm, []).append(self.facts(entry.evaluate)["per_class"])
        return arms

    @cached_property
    def curves(self) -> list[dict[str, Any]]:
        """W2 against K for every quantizer that was followed, the main arm's last."""
        return [
            {"name": name, "arm": name, **self.facts(node)}
            for name, node in self.experiment.curves.items()
        ]

    def class_codebooks(self) -> list[dict[str, Any]]:
        """Return one row per class: its name, the measures of the main arm's first codebook, slope
        and dimension; none where its images were not made from points.
        """
        if self.main.quantize is None:
            return []
        rates = {own["label"]: own for own in self.curves[-1]["per_class"]} if self.curves else {}
        unknown = {"slope": None, "dimension": None}
        return [
            {"name": self.index["class_names"][label], **own, **rates.get(label, unknown)}
            for label, own in enumerate(self.facts(self.main.quantize)["per_class"])
        ]

    @cached_property
    def optimised(self) -> dict[str, Node]:
        """The first set of every arm whose images a method optimised by any step, by arm."""
        nodes: dict[str, Node] = {}
        for entry in self._main_entries():
            is_method = entry.images and entry.images.stage == "distill"
            if is_method and self.facts(entry.images)["losses"]:
                nodes.setdefault(entry.arm, entry.images)
        return nodes

    def optimisations(self) -> dict[str, dict[str, Any]]:
        """Return what the manifest of each of these sets says, by arm."""
        return {arm: self.store.manifest(node) for arm, node in self.optimised.items()}

    def starts_and_ends(self) -> list[Strip]:
        """Return two strips for each of these arms: the first image of the first classes before
        the first step, and after the last; none of a set that was made before starts were kept.
        """
        strips = []
        for arm, node in self.optimised.items():
            end = self.store.path(node)
            start = end / START
            names = [path.relative_to(start) for path in sorted(start.glob("*/00000.png"))]
            for title, folder in ((f"{arm}, start", start), (f"{arm}, end", end)):
                pictures = [Picture(folder / name) for name in names[:_ARMS_SHOWN]]
                strips += [Strip(title, pictures)] * bool(pictures)
        return strips

    def choices_among_draws(self) -> dict[str, Facts]:
        """Return what selections chose for the first set of every arm that has one."""
        chosen: dict[str, Facts] = {}
        for entry in self._main_entries():
            if entry.images and entry.images.stage == "select":
                chosen.setdefault(entry.arm, self.facts(entry.images))
        return chosen

    def redundancies(self) -> dict[str, Facts]:
        """Return how well a student of each arm's first images knows the next, by arm."""
        return {arm: self.facts(node) for arm, node in self.experiment.redundancy.items()}

    def fidelities(self) -> dict[str, Facts]:
        """Return how the images of every arm look to the teacher."""
        return {arm: self.facts(node) for arm, node in self.experiment.fidelity.items()}

    def entropies(self) -> Mapping[str, list[float]] | None:
        """Return ``weight`` and label ``entropy`` of the main arm's images,
        where they were measured.
        """
        node = self.experiment.fidelity.get(self.main_arm)
        return node and pq.read_table(self.store.path(node) / PER_IMAGE).to_pydict()

    def _main_entries(self) -> list[Entry]:
        return [entry for entry in self.experiment.entries if entry.table == "main"]

    # --- cost ---------------------------------------------------------------------------------

    @cached_property
    def stage_costs(self) -> list[dict[str, Any]]:
        """What every stage cost, over all its artefacts, whenever they were computed; ``hits`` were
        in the store before the run.
        """
        hits = {step.node.key for step in self.steps if step.state == "hit"}
        by_stage: dict[str, dict[str, Facts]] = {}
        for node in unique(self.experiment.targets("report")):
            if self.store.has(node):
                by_stage.setdefault(node.stage, {})[node.key] = self.store.manifest(node)["cost"]
        return [
            {"stage": stage, "hits": len(hits & by_stage[stage].keys())}
            | _total(list(by_stage[stage].values()))
            for stage in STAGES
            if stage in by_stage
        ]

    def models(self) -> list[str]:
        """Return a line about each model that ddoq fitted or tried for this run."""
        nodes = [
            self.experiment.nodes.encoder,
            self.experiment.nodes.fitted_generator(self.config["generator"]),
            *(n for n in unique(self.experiment.targets("report")) if n.stage in _OF_MODELS),
        ]
        lines = []
        for node in nodes:
            if node is not None and self.store.has(node):
                told = self.store.manifest(node)
                facts = ", ".join(f"{name} {value}" for name, value in told["facts"].items())
                lines.append(f"{node.stage}: {facts}; {told['cost']['seconds']:.0f} s")
        return lines


def _total(costs: Sequence[Facts]) -> dict[str, Any]:
    """Return the cost of several artefacts of one stage."""
    return {
        "artefacts": len(costs),
        "seconds": sum(cost["seconds"] for cost in costs),
        "peak_mib": max(cost["peak_mib"] for cost in costs),
        "gpu_peak_mib": max(cost.get("gpu_peak_mib", 0) for cost in costs),
        "num_bytes": sum(cost["bytes"] for cost in costs),
    }


@dataclass(frozen=True, kw_only=True)
class RunReport(Report):
    """The report of one run: its rows, and the store's evidence.

    Attributes:
        run: the evidence.
    """

    run: Evidence

    @property
    def main_arm(self) -> str:
        """The arm that the user composed."""
        return self.run.main_arm

    @cached_property
    def shown(self) -> list[Group]:
        """The main table: what else was measured has tables of its own."""
        return [group for group in self.groups if group["table"] == "main"]
