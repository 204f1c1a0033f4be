"""What protocols and teachers can get wrong beyond types, choices and ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Problems = Iterator[tuple[str, str]]


def protocol_problems(config: Mapping[str, Any]) -> Problems:
    """Yield cause and remedy of every problem of ``protocol``, ``teacher`` and ``compare``."""
    protocol = config["protocol"]
    epochs, steps = protocol["epochs"], protocol["num_steps"]
    if (epochs is None) == (steps is None):
        yield (
            f"protocol.epochs: {epochs} with protocol.num_steps: {steps}",
            "set one of the two, and the other to null",
        )
    elif epochs is None and protocol["schedule_by"] == "epoch":
        yield (
            "protocol.schedule_by: epoch, and there is no number of epochs",
            "set protocol.schedule_by=step",
        )
    if steps is not None and protocol["num_evaluations"] > steps:
        yield (
            "protocol.num_evaluations: "
            f"{protocol['num_evaluations']} is more than protocol.num_steps, {steps}",
            "lower it",
        )
    if config["dataset"]["channels"] == 1:
        if protocol["normalization"] == "imagenet":
            yield (
                "protocol.normalization: imagenet has statistics of three channels",
                "set protocol.normalization=dataset",
            )
        if protocol["augmentation"]["lighting"]:
            yield (
                "protocol.augmentation.lighting: grey images have no colours",
                "set protocol.augmentation.lighting=0",
            )
    if protocol["labels"] == "stored" and protocol["weights"]["use"] == "sampling":
        yield (
            "protocol.labels: stored labels belong to fixed views, "
            "and weights.use=sampling draws others for every arm",
            "set protocol.labels=soft",
        )
    if protocol["labels"] == "fixed" and (protocol["loss"] != "kl" or protocol["hard_share"]):
        yield (
            "protocol.labels: fixed labels are probabilities",
            "set protocol.loss=kl and protocol.hard_share=0",
        )
    yield from _teacher_problems(config["teacher"], "teacher")
    for name, teacher in config["compare"]["teachers"].items():
        yield from _teacher_problems(teacher, f"compare.teachers.{name}")


def _teacher_problems(teacher: Mapping[str, Any], key: str) -> Problems:
    if "members" in teacher and not teacher["members"]:
        yield (
            f"{key}.members: an ensemble of nobody",
            f"add teachers: +teacher@{key}.members.a=resnet18",
        )
    for name, member in teacher.get("members", {}).items():
        if "members" in member:
            yield f"{key}.members.{name}: an ensemble in an ensemble", "list its members instead"
    if "library" in teacher and teacher["library"] == "torchvision" and teacher["path"] is None:
        yield (
            f"{key}.path: null, and torchvision's weights are not fetched here",
            f"set {key}.path to the file, "
            f"or take the same weights from timm ({key}.model=resnet18.tv_in1k)",
        )
