"""One row per student, with all that tables of many runs need.

Nothing is computed that a manifest does not say.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ddoq.config.arms import is_redrawn
from ddoq.data.leaks import leak_counts
from ddoq.errors import StoreError
from ddoq.experiment import Entry, Experiment
from ddoq.pipeline.graph import Node, unique
from ddoq.pipeline.keys import digest, settled
from ddoq.pipeline.store import Store
from ddoq.report.costs import OF_ARM, set_bytes

Manifest = Callable[[Node], dict[str, Any] | None]

#: What numbers a draw or only measures it: students that differ in nothing else belong to one mean.
_NOT_MEANING = ("seed", "num_folds")
_MEASURES = ("w2_squared", "w2_squared_uniform", "variance", "held_out_distortion")


def result_rows(experiment: Experiment, store: Store) -> list[dict[str, Any]]:
    """Return one row per student, on whichever split;
    accuracies are fractions, squared distances those of latents.

    Students with the same ``group_key`` differ in nothing but their seeds; with the same
    ``arm_key`` their distilled sets were made in the same way; with the same ``recipe_key`` they
    are the same network, trained by the same protocol. What a manifest does not say, or no
    longer can, is ``None``.
    """

    @cache
    def manifest(node: Node) -> dict[str, Any] | None:
        try:
            return store.manifest(node)
        except StoreError:  # an artefact that was removed since: its students are still there
            return None

    common = _common(experiment, store)
    return [
        _row(entry, experiment, store) | common | _cost(entry, manifest)
        for entry in experiment.entries
    ]


def _row(entry: Entry, experiment: Experiment, store: Store) -> dict[str, Any]:
    config, manifest = experiment.config, store.manifest(entry.evaluate)
    facts, identity = manifest["facts"], entry.evaluate.identity
    space = entry.quantize.identity if entry.quantize else None
    return {
        "dataset": config["dataset"]["name"],
        "arm": entry.arm,
        "ipc": config["ipc"],
        "protocol": config["protocol"]["name"],
        "student": entry.student,
        "seed": entry.seed,
        **{name: facts[name] for name in ("top1", "top1_best", "top5", "ece", "nll")},
        "split": entry.split,
        "table": entry.table,
        "value": entry.value,
        **{
            part: entry.about.get(part)
            for part in ("method", "quantizer", "weighting", "generator")
        },
        "strength": _strength(entry),
        "labels": entry.labels,
        "teacher": _teacher(entry),
        **{
            name: facts[name]
            for name in ("num_images", "epochs", "num_steps", "batch_size", "learning_rate")
        },
        **_precisions(entry),
        "protocol_key": digest(settled(config["protocol"])),
        "seconds": manifest["cost"]["seconds"],
        "key": entry.evaluate.key,
        "space": space and space["space"]["name"],
        "allocation": space and space["allocation"],
        "redraw": _is_redrawn(entry, experiment),
        "group_key": _meaning(entry.evaluate),
        "arm_key": _meaning(entry.label) if entry.label else None,
        "recipe_key": digest(
            settled({name: identity[name] for name in ("student", "protocol")}, "evaluate")
        ),
        "host": manifest["provenance"]["host"],
        "git": manifest["provenance"]["git"],
        "device": "gpu" if "gpu_peak_mib" in manifest["cost"] else "cpu",
        "num_bytes": set_bytes(entry, experiment, store),
    }


def _common(experiment: Experiment, store: Store) -> dict[str, Any]:
    """Return what the data and the run say about all its students."""
    config, facts = experiment.config, store.manifest(experiment.nodes.index)["facts"]
    audit = store.manifest(experiment.nodes.audit)["facts"]
    return {
        "run_seed": config["seed"],
        "selection": config["protocol"]["selection"],
        "image_size": config["dataset"]["image_size"],
        "dataset_key": experiment.nodes.index.key,
        "dataset_source": facts["provenance"],
        "num_skipped": facts["num_skipped"],
        **leak_counts(audit),
        "unexpected_counts": facts["unexpected_counts"],
        "num_classes": len(facts["class_names"]),
        **{f"num_{split}": sum(counts) for split, counts in facts["counts"].items()},
    }


def _meaning(node: Node) -> str:
    """Return the key that a node would have if it, and all that it is made of, had no seed."""
    settings = settled(node.identity, node.stage)
    identity = {name: part for name, part in settings.items() if name not in _NOT_MEANING}
    inputs = {name: _meaning(upstream) for name, upstream in node.inputs.items()}
    return digest([node.stage, node.version, identity, inputs])


def _cost(entry: Entry, manifest: Manifest) -> dict[str, Any]:
    """Return the measures of a student's codebook,
    and what it cost to get as far as its distilled set.

    ``distil_seconds`` are those of the set itself, which students without a redraw share
    (``set_key``); ``shared_seconds`` those of what other arms use as well. See
    ``ddoq.report.costs.ArmCost``.
    """
    nodes = unique([entry.evaluate])
    found = {node.key: manifest(node) for node in nodes}
    own = [node.key for node in nodes if node.stage in OF_ARM]
    shared = [node.key for node in nodes if node.stage != "evaluate" and node.key not in own]
    quantized = found[entry.quantize.key] if entry.quantize else None
    costs = [one["cost"] for one in found.values() if one]

    def seconds(keys: list[str]) -> float | None:
        known = [found[key]["cost"]["seconds"] for key in keys if found[key]]
        return round(sum(known), 3) if len(known) == len(keys) else None

    return {
        **{name: quantized["facts"].get(name) if quantized else None for name in _MEASURES},
        "distil_seconds": seconds(own),
        "shared_seconds": seconds(shared),
        "set_key": entry.label.key if entry.label else None,
        "peak_mib": max(cost["peak_mib"] for cost in costs),
        "gpu_peak_mib": max(
            (cost["gpu_peak_mib"] for cost in costs if "gpu_peak_mib" in cost), default=None
        ),
    }


def _is_redrawn(entry: Entry, experiment: Experiment) -> bool | None:
    """Tell whether each student had a set of its own; the full data are no set that is drawn."""
    if entry.route is None:
        return None
    return is_redrawn(experiment.arms()[entry.arm], experiment.config["protocol"])


def _strength(entry: Entry) -> float | None:
    if entry.table == "strength":
        return float(entry.value)
    return entry.route and entry.route.strength


def _precisions(entry: Entry) -> dict[str, str | None]:
    """Return the precisions of the networks behind a student's images;
    ``None`` where there are none.
    """
    if entry.quantize is None:
        return {"encoder_precision": None, "generator_precision": None}
    generator = entry.images.identity["generator"]
    return {
        "encoder_precision": entry.quantize.inputs["encode"]
        .identity["encoder"]
        .get("precision", "float32"),
        "generator_precision": generator.get("precision"),
    }


def _teacher(entry: Entry) -> str | None:
    """Return the name of the teacher whose labels a student saw."""
    if entry.labels == "hard":
        return None
    through = {
        "soft": entry.evaluate,
        "stored": entry.evaluate.inputs.get("relabel"),
        "fixed": entry.label,
    }
    return through[entry.labels].inputs["teacher"].title
