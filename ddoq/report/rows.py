"""One row per student, with all that tables of many runs need.

Nothing is computed that a manifest does not say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ddoq.config.arms import is_redrawn
from ddoq.data.leaks import leak_counts
from ddoq.errors import StoreError
from ddoq.experiment import Entry, Experiment
from ddoq.experiment.teachers import seen_test_images
from ddoq.pipeline.graph import Node, unique
from ddoq.pipeline.keys import digest, settled
from ddoq.pipeline.stages import TABLE
from ddoq.pipeline.store import Store

Manifest = Callable[[Node], dict[str, Any] | None]

#: The stages whose results belong to one arm.
_OF_ARM = tuple(stage.name for stage in TABLE.values() if stage.per_arm)
#: Those that make images and choose among them.
_OF_IMAGES = ("distill", "generate", "select")
#: What numbers a draw or only measures it: students that differ in nothing else belong to one mean.
_NOT_MEANING = ("seed", "num_folds")
#: Of codebooks, in squared units of the latents.
_MEASURES = ("w2_squared", "w2_squared_uniform", "variance", "held_out_distortion", "distortion")


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
        _row(entry, experiment, store, common["num_classes"])
        | common
        | _codebook(entry, manifest)
        | _cost(entry, manifest)
        | _sizes(entry, manifest)
        for entry in experiment.entries
    ]


def _row(entry: Entry, experiment: Experiment, store: Store, num_classes: int) -> dict[str, Any]:
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
            for part in ("method", "quantizer", "weighting", "generator", "guidance")
        },
        "select": entry.about.get("selection"),
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
        "num_bytes": _set_bytes(entry, experiment, store),
        "unlearned": _unlearned(facts, identity["protocol"], num_classes),
        "redundancy": _redundancy(entry, experiment, store),
    }


def _redundancy(entry: Entry, experiment: Experiment, store: Store) -> float | None:
    """Return the top-1 on an arm's next images of a student that its first were shown."""
    node = experiment.redundancy.get(entry.arm) if entry.table == "main" else None
    return node and store.manifest(node)["facts"]["top1"]


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
        "seen_test_images": seen_test_images(config),
        "num_classes": len(facts["class_names"]),
        **{f"num_{split}": sum(counts) for split, counts in facts["counts"].items()},
    }


def _meaning(node: Node) -> str:
    """Return the key that a node would have if it, and all that it is made of, had no seed."""
    settings = settled(node.identity, node.stage)
    identity = {name: part for name, part in settings.items() if name not in _NOT_MEANING}
    inputs = {name: _meaning(upstream) for name, upstream in node.inputs.items()}
    return digest([node.stage, node.version, identity, inputs])


def _codebook(entry: Entry, manifest: Manifest) -> dict[str, Any]:
    """Return the measures of a student's codebook over all classes;
    ``num_points`` is the mean number of them per class, over the latents, as the measures are.
    """
    manifested = manifest(entry.quantize) if entry.quantize else None
    facts = manifested["facts"] if manifested else {}
    classes = facts.get("per_class", ())
    num_latents = sum(own["num"] for own in classes)
    return {
        **{name: facts.get(name) for name in _MEASURES},
        "effective_points": facts.get("effective_size"),
        "dispersion": facts.get("dispersion"),
        "num_points": sum(own["num"] * own["num_centroids"] for own in classes) / num_latents
        if num_latents
        else None,
    }


def _cost(entry: Entry, manifest: Manifest) -> dict[str, Any]:
    """Return what it cost to get as far as a student's distilled set.

    ``distil_seconds`` are those of the set itself (codebook, images, labels), which students
    without a redraw share (``set_key``), ``image_seconds`` those of its images alone, by image, its
    networks read; ``shared_seconds`` those of what other arms use as well
    (index, latents, fitted networks). A process holds one device.
    """
    nodes = unique([entry.evaluate])
    manifests = {node.key: manifest(node) for node in nodes}
    own = [node.key for node in nodes if node.stage in _OF_ARM]
    shared = [node.key for node in nodes if node.stage != "evaluate" and node.key not in own]
    costs = [told["cost"] for told in manifests.values() if told]

    def seconds(keys: list[str]) -> float | None:
        times = [manifests[key]["cost"]["seconds"] for key in keys if manifests[key]]
        return round(sum(times), 3) if len(times) == len(keys) else None

    making = seconds([node.key for node in nodes if node.stage in _OF_IMAGES])
    made = manifest(entry.images) if entry.images else None
    return {
        "image_seconds": made and making and making / made["facts"]["num_images"],
        "distil_seconds": seconds(own),
        "shared_seconds": seconds(shared),
        "set_key": entry.label.key if entry.label else None,
        "peak_mib": max(cost["peak_mib"] for cost in costs),
        "gpu_peak_mib": max(
            (cost["gpu_peak_mib"] for cost in costs if "gpu_peak_mib" in cost), default=None
        ),
    }


def _set_bytes(entry: Entry, experiment: Experiment, store: Store) -> int:
    """Return the bytes of a student's distilled set, stored soft labels included.

    Those of the full data are the pixels of the training images, uncompressed.
    """
    if entry.label is None:
        dataset, facts = experiment.config["dataset"], store.manifest(entry.evaluate)["facts"]
        return facts["num_images"] * dataset["channels"] * dataset["image_size"] ** 2
    relabel = entry.evaluate.inputs.get("relabel")
    return sum(store.manifest(node)["cost"]["bytes"] for node in (entry.label, relabel) if node)


def _sizes(entry: Entry, manifest: Manifest) -> dict[str, int | None]:
    """Return how many images a student's distilled set stores (it sees ``num_images``), the bytes
    of images, soft labels, and weights with the other metadata; the full data have none.
    """
    labelled = manifest(entry.label) if entry.label else None
    if labelled is None:
        return dict.fromkeys(("num_stored", "image_bytes", "label_bytes", "weight_bytes"))
    files = {name: file["bytes"] for name, file in labelled["files"].items()}
    relabel = entry.evaluate.inputs.get("relabel")
    stored = manifest(relabel) if relabel else None
    # PNGs, and where a method optimised them the floats that students take (``ddoq.data.floats``)
    images = (".png", "images.safetensors")
    return {
        "num_stored": labelled["facts"]["num_images"],
        "image_bytes": sum(size for name, size in files.items() if name.endswith(images)),
        "label_bytes": files.get("targets.safetensors", 0)
        + (stored["cost"]["bytes"] if stored else 0),
        "weight_bytes": files.get("metadata.parquet", 0),
    }


def _unlearned(
    facts: Mapping[str, Any], protocol: Mapping[str, Any], num_classes: int
) -> float | None:
    """Return the training loss at the end over that of knowing nothing, log C.

    ``None`` where the floor of the loss is not 0 or not known: soft labels, mixed images.
    """
    augmentation = protocol["augmentation"]
    is_mixed = augmentation["mixup"] or augmentation["cutmix"]
    history = facts.get("history")
    if protocol["labels"] != "hard" or is_mixed or not history or num_classes < 2:
        return None
    return history[-1]["loss"] / math.log(num_classes)


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
    if entry.generate is None:
        return {"encoder_precision": None, "generator_precision": None}
    generator = entry.generate.identity["generator"]
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
