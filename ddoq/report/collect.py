"""From the store's manifests to the tables of a run.

Nothing is computed that a manifest does not say.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from statistics import fmean
from typing import Any

from ddoq.evaluation.statistics import Summary, summarize
from ddoq.experiment import Entry, Experiment
from ddoq.pipeline.store import Store
from ddoq.report.costs import set_bytes


@dataclass(frozen=True)
class Line:
    """One line of a table of accuracies: an arm, or one varied value, over its seeds."""

    label: str
    arm: str
    top1: Summary
    top1_best: Summary
    top5: Summary | None  # None for up to five classes
    ece: Summary
    accuracies: tuple[float, ...]  # last-epoch accuracy of each seed, in seed order
    per_class: list[float | None]  # mean top-1 over seeds, in label order
    parts: dict[str, str]
    num_images: int
    num_steps: int
    epochs: int | None
    num_bytes: int
    #: Measures over all classes, with the mean number of points.
    codebook: dict[str, float | None] | None


@dataclass(frozen=True)
class Effect:
    """The difference of two lines over the same seeds."""

    what: str
    change: str
    split: str
    difference: Summary


@dataclass(frozen=True)
class Curve:
    """W2 against the number of points, of one quantizer.

    Squared distances in units of the latents.
    """

    name: str
    #: The measures over all classes at every K that all of them can have.
    points: list[dict[str, float | None]]
    slope: float | None  # of log W2 against log K
    dimension: float | None  # -1/slope, where W2 falls
    per_class: dict[int, dict[str, float | None]]  # slope and dimension by label


def lines(experiment: Experiment, store: Store, table: str) -> list[Line]:
    """Return the lines of a table, in the experiment's order."""
    entries = [entry for entry in experiment.entries if entry.table == table]
    return [
        _line(list(group), experiment, store)
        for _, group in groupby(entries, lambda e: (e.arm, e.value))
    ]


def _line(entries: list[Entry], experiment: Experiment, store: Store) -> Line:
    manifests = [store.manifest(entry.evaluate) for entry in entries]
    first, facts = entries[0], manifests[0]["facts"]
    measured = {name: [manifest["facts"][name] for manifest in manifests] for name in _MEASURES}
    return Line(
        label=first.value or first.arm,
        arm=first.arm,
        top1=summarize(measured["top1"]),
        top1_best=summarize(measured["top1_best"]),
        top5=None if facts["top5"] is None else summarize(measured["top5"]),
        ece=summarize(measured["ece"]),
        accuracies=tuple(measured["top1"]),
        per_class=[
            None if None in of_class else fmean(of_class)
            for of_class in zip(*measured["per_class"], strict=True)
        ],
        parts=dict(first.about),
        num_images=facts["num_images"],
        num_steps=facts["num_steps"],
        epochs=facts["epochs"],
        num_bytes=set_bytes(first, experiment, store),
        codebook=_codebook(store.manifest(first.quantize)["facts"]) if first.quantize else None,
    )


_MEASURES = ("top1", "top1_best", "top5", "ece", "per_class")


def _codebook(facts: dict[str, Any]) -> dict[str, float | None]:
    """Return the measures over all classes;
    their points are averaged as the measures are, over the latents.
    """
    rows = facts["per_class"]
    size = sum(row["num"] * row["num_centroids"] for row in rows) / sum(row["num"] for row in rows)
    return {key: value for key, value in facts.items() if key != "per_class"} | {
        "num_centroids": size
    }


def curves(experiment: Experiment, store: Store) -> list[Curve]:
    """Return W2 against K for every quantizer that was followed, the main arm's last;
    empty if none was.
    """
    found = []
    for name, node in experiment.curves.items():
        facts = store.manifest(node)["facts"]
        by_label = {row["label"]: row for row in facts["per_class"]}
        found.append(Curve(name, facts["points"], facts["slope"], facts["dimension"], by_label))
    return found


def class_rows(experiment: Experiment, store: Store, curve: Curve | None) -> list[dict[str, Any]]:
    """Return one row per class: its name, the measures of the main arm's first codebook, slope and
    dimension; none where its images were not made from points.

    Args:
        experiment: the run.
        store: where its artefacts are.
        curve: of the main arm's quantizer; without it slope and dimension are ``None``.
    """
    names = store.manifest(experiment.nodes.index)["facts"]["class_names"]
    first = next(entry for entry in experiment.entries if entry.arm == experiment.main_name)
    if first.quantize is None:
        return []
    unknown = {"slope": None, "dimension": None}
    rates = curve.per_class if curve else {}
    return [
        {"name": names[label], **row, **rates.get(label, unknown)}
        for label, row in enumerate(store.manifest(first.quantize)["facts"]["per_class"])
    ]


def effects(experiment: Experiment, main: list[Line], strengths: list[Line]) -> list[Effect]:
    """Return what each ingredient adds, as paired differences over seeds,
    one ingredient at a time.
    """
    by_arm = {line.label: line for line in main}
    name, split = experiment.main_name, experiment.config["split"]
    twin = by_arm.get(f"{name}_uniform", by_arm.get(name.removesuffix("_weighted")))
    found = []

    def compare(what: str, after: Line | None, before: Line | None, on: str) -> None:
        if after is not None and before is not None and after is not before:
            differences = [a - b for a, b in zip(after.accuracies, before.accuracies, strict=True)]
            found.append(
                Effect(what, f"{before.label} → {after.label}", on, summarize(differences))
            )

    compare(
        "choosing images by quantization, not at random",
        by_arm.get("nearest"),
        by_arm.get("random"),
        split,
    )
    compare("converged k-means, not D4M's single pass", twin, by_arm.get("d4m"), split)
    compare("weights", by_arm[name], twin, split)
    by_strength = {line.label: line for line in strengths}
    configured = by_strength.get(f"{experiment.config['generator'].get('strength', -1):g}")
    compare(
        "diffusion at the configured strength, not bare decoding",
        configured,
        by_strength.get("0"),
        "validation",
    )
    compare(
        "starting from the centroid, not from noise", configured, by_strength.get("1"), "validation"
    )
    return found


def optimisations(experiment: Experiment, store: Store) -> dict[str, dict[str, Any]]:
    """Return ``steps`` and mean ``losses`` of the first set of every arm
    whose images a method optimised, by arm.
    """
    followed: dict[str, dict[str, Any]] = {}
    for entry in experiment.entries:
        if entry.table == "main" and entry.images and entry.images.stage == "distill":
            facts = store.manifest(entry.images)["facts"]
            followed.setdefault(
                entry.arm, {"steps": facts["loss_steps"], "losses": facts["losses"]}
            )
    return followed


def fidelities(experiment: Experiment, store: Store) -> dict[str, dict[str, Any]]:
    """Return the facts of the ``fidelity`` stage by arm."""
    return {arm: store.manifest(node)["facts"] for arm, node in experiment.fidelity.items()}


def summary_metrics(main: list[Line], split: str) -> dict[str, float]:
    """Return flat metrics for trackers, e.g. ``test/ddoq/top1_mean``."""
    return {
        f"{split}/{line.label}/top1_{name}": value
        for line in main
        for name, value in asdict(line.top1).items()
    }
