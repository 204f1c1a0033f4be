"""What a run cost, by stage and by arm, whenever it was computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ddoq.experiment import Entry, Experiment
from ddoq.pipeline.graph import Node, unique
from ddoq.pipeline.stages import STAGES, TABLE
from ddoq.pipeline.store import Store


@dataclass(frozen=True)
class StageCost:
    """What a stage cost, over all its artefacts in this run."""

    stage: str
    artefacts: int
    hits: int
    seconds: float
    peak_mib: float
    gpu_peak_mib: float
    num_bytes: int


@dataclass(frozen=True)
class ArmCost:
    """What an arm cost, from training images to students.

    ``shared_seconds`` were spent once for several arms (index, latents, fitted networks);
    ``distil_seconds`` are those of its own codebooks, images and labels, per distilled set;
    ``student_seconds`` per student. A process holds one device, so seconds over 3,600 are
    device-hours. Bytes are those of one distilled set; ``label_bytes`` those of soft labels alone.
    """

    arm: str
    shared_seconds: float
    distil_seconds: float
    student_seconds: float
    device_hours: float
    peak_mib: float
    gpu_peak_mib: float
    image_bytes: int
    label_bytes: int
    weight_bytes: int


#: The stages whose results belong to one arm.
OF_ARM = tuple(stage.name for stage in TABLE.values() if stage.per_arm)


def stage_costs(experiment: Experiment, store: Store, hits: Iterable[str]) -> list[StageCost]:
    """Return the cost of every stage; ``hits`` are the keys
    that were in the store before the run.
    """
    hits = set(hits)
    by_stage: dict[str, list[tuple[str, dict]]] = {}
    for node in unique(experiment.targets("report")):
        if store.has(node):
            by_stage.setdefault(node.stage, []).append((node.key, store.manifest(node)["cost"]))
    return [
        StageCost(
            stage,
            len(parts),
            sum(key in hits for key, _ in parts),
            sum(c["seconds"] for _, c in parts),
            max(c["peak_mib"] for _, c in parts),
            max(c.get("gpu_peak_mib", 0) for _, c in parts),
            sum(c["bytes"] for _, c in parts),
        )
        for stage, parts in sorted(by_stage.items(), key=lambda item: STAGES.index(item[0]))
    ]


def arm_costs(experiment: Experiment, store: Store) -> list[ArmCost]:
    """Return the cost of every arm of the main table."""
    by_arm: dict[str, list[Entry]] = {}
    for entry in experiment.entries:
        if entry.table == "main":
            by_arm.setdefault(entry.arm, []).append(entry)
    return [_arm_cost(arm, entries, store) for arm, entries in by_arm.items()]


def _arm_cost(arm: str, entries: list[Entry], store: Store) -> ArmCost:
    nodes = [node for node in unique(entry.evaluate for entry in entries) if store.has(node)]
    manifests = {node.key: store.manifest(node) for node in nodes}

    def seconds(some: Iterable[Node]) -> float:
        return sum(manifests[node.key]["cost"]["seconds"] for node in some)

    own = [node for node in nodes if node.stage in OF_ARM]
    students = [node for node in nodes if node.stage == "evaluate"]
    shared = [node for node in nodes if node not in own and node not in students]
    num_sets = max(1, sum(node.stage == "label" for node in nodes))
    costs = [manifests[node.key]["cost"] for node in nodes]
    sizes = _sizes(entries[0], manifests)
    return ArmCost(
        arm,
        seconds(shared),
        seconds(own) / num_sets,
        seconds(students) / len(students),
        (seconds(shared) + seconds(own) + seconds(students)) / 3600,
        max(cost["peak_mib"] for cost in costs),
        max(cost.get("gpu_peak_mib", 0) for cost in costs),
        *sizes,
    )


def set_bytes(entry: Entry, experiment: Experiment, store: Store) -> int:
    """Return the bytes of a student's distilled set, stored soft labels included.

    Those of the full data are the pixels of the training images, uncompressed.
    """
    if entry.label is None:
        dataset, facts = experiment.config["dataset"], store.manifest(entry.evaluate)["facts"]
        return facts["num_images"] * dataset["channels"] * dataset["image_size"] ** 2
    relabel = entry.evaluate.inputs.get("relabel")
    return sum(store.manifest(node)["cost"]["bytes"] for node in (entry.label, relabel) if node)


def _sizes(entry: Entry, manifests: dict[str, dict]) -> tuple[int, int, int]:
    """Return the bytes of images, soft labels and weights of an entry's distilled set;
    zeros for the full data.
    """
    if entry.label is None or entry.label.key not in manifests:
        return 0, 0, 0
    files = {name: file["bytes"] for name, file in manifests[entry.label.key]["files"].items()}
    # PNGs, and where a method optimised them the floats that students take (``ddoq.data.floats``)
    images = sum(
        size for name, size in files.items() if name.endswith((".png", "images.safetensors"))
    )
    labels = files.get("targets.safetensors", 0)
    relabel = entry.evaluate.inputs.get("relabel")
    if relabel is not None and relabel.key in manifests:
        labels += manifests[relabel.key]["cost"]["bytes"]
    return images, labels, files.get("metadata.parquet", 0)
