"""What a run tells its tracker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ddoq.config.arms import arm_name
from ddoq.experiment import Entry, Experiment
from ddoq.pipeline.keys import digest, settled
from ddoq.pipeline.store import Store
from ddoq.report.groups import Group
from ddoq.tracking import Results, Student, TrackedArtefact

_MEASURES = ("top1", "top1_best", "top5", "ece", "nll", "seconds")
_OF_CODEBOOK = ("w2_squared", "distortion", "variance")
_DERIVED = ("num_images", "epochs", "num_steps", "batch_size", "learning_rate")


def tracked(
    experiment: Experiment,
    store: Store,
    rows: Sequence[dict[str, Any]],
    main: Sequence[Group],
    spent: Sequence[Mapping[str, Any]],
    figures: dict[str, Path],
) -> Results:
    """Return a finished run as plain data.

    Args:
        experiment: the run.
        store: where its artefacts are.
        rows: one per entry of the experiment, in its order.
        main: the groups of the main table.
        spent: the cost of every stage.
        figures: PNG files by name.
    """
    entry = next(entry for entry in experiment.entries if entry.arm == experiment.main_name)
    codebook, distilled = artefacts(experiment, store, entry)
    students = {
        own.evaluate.key: _student(own, row, store)
        for own, row in zip(experiment.entries, rows, strict=True)
        if own.table == "main"
    }
    return Results(
        rows=rows,
        summary=metrics(main, spent, experiment.config["split"]),
        columns={"key": _keys(experiment, entry), "derived": _derived(experiment, store, entry)},
        students=list(students.values()),
        codebook=codebook,
        distilled=distilled,
        figures=figures,
    )


def metrics(
    main: Sequence[Group], spent: Sequence[Mapping[str, Any]], split: str
) -> dict[str, float]:
    """Return accuracies (fractions), e.g. ``test/ddoq/top1_mean``, measures of codebooks (in units
    of the latents), seconds and MiB, all finite.
    """
    accuracies = {
        f"{split}/{group['arm']}/top1_{name}": value
        for group in main
        for name, value in asdict(group["accuracy"]).items()
    }
    codebooks = {
        f"codebook/{group['arm']}/{name}": group[name]
        for group in main
        for name in _OF_CODEBOOK
        if group[name] is not None
    }
    cost = {f"cost/{stage['stage']}/seconds": stage["seconds"] for stage in spent}
    cost["cost/total_seconds"] = sum(stage["seconds"] for stage in spent)
    cost["cost/peak_mib"] = max(stage["peak_mib"] for stage in spent)
    cost["cost/gpu_peak_mib"] = max(stage["gpu_peak_mib"] for stage in spent)
    # One seed has no spread.
    every = accuracies | codebooks | cost
    return {name: value for name, value in every.items() if math.isfinite(value)}


def artefacts(
    experiment: Experiment, store: Store, entry: Entry
) -> tuple[TrackedArtefact | None, TrackedArtefact]:
    """Return the codebook, if there is one, and the distilled data of an entry;
    the latents are only named.
    """
    config = experiment.config
    slug = f"{config['dataset']['name']}-{arm_name(config)}-ipc{config['ipc']}-s{config['seed']}"
    about = {
        "dataset": config["dataset"]["name"],
        "arm": entry.arm,
        "ipc": config["ipc"],
        **entry.about,
    }
    codebook, points = None, entry.quantize
    if points is not None:
        about |= {"latents": experiment.nodes.encode.key}
        name = f"codebook-{slug}"
        codebook = TrackedArtefact(
            key=points.key,
            name=name,
            kind="codebook",
            folder=store.path(points),
            metadata=dict(about),
        )
        about |= {"codebook": points.key}
    about |= {entry.images.stage: entry.images.key}
    name, folder = f"distilled-{slug}", store.path(entry.label)
    return codebook, TrackedArtefact(
        key=entry.label.key, name=name, kind="distilled-dataset", folder=folder, metadata=about
    )


def _student(entry: Entry, row: dict[str, Any], store: Store) -> Student:
    facts = store.manifest(entry.evaluate)["facts"]
    # Artefacts from before there was a history know the accuracies,
    # but not after which steps they were measured.
    accuracies = enumerate(facts.get("accuracies", ()), 1)
    curve = facts.get("history") or [{"step": i, "top1": top1} for i, top1 in accuracies]
    size = f"-ipc{row['ipc']}" if entry.label else ""
    return Student(
        key=entry.evaluate.key,
        name=f"{entry.arm}{size}-s{entry.seed}",
        config={name: value for name, value in row.items() if name not in _MEASURES},
        curve=curve,
        summary={name: row[name] for name in _MEASURES if row[name] is not None},
    )


def _keys(experiment: Experiment, entry: Entry) -> dict[str, str]:
    """Return the keys of the stages behind the main arm's first student."""
    nodes = [experiment.nodes.index, entry.images, entry.label]
    if entry.quantize:
        nodes += [experiment.nodes.encode, entry.quantize]
    return {node.stage: node.key for node in nodes} | {
        "protocol": digest(settled(experiment.config["protocol"]))
    }


def _derived(experiment: Experiment, store: Store, entry: Entry) -> dict[str, Any]:
    """Return what the data and the protocol's rules came to."""
    index = store.manifest(experiment.nodes.index)["facts"]
    facts = store.manifest(entry.evaluate)["facts"]
    counts = {"num_classes": len(index["class_names"]), "num_train": sum(index["counts"]["train"])}
    return counts | {name: facts[name] for name in _DERIVED}
