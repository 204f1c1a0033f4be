"""evaluate: train one student on one data set and measure it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ddoq.pipeline.graph import Node
from ddoq.stages.runtime import Runtime, build, facts

VERSION = 1


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write nothing but facts: ``top1`` of the last epoch, ``top1_best``, and the accuracies along the way."""
    from ddoq.data.distilled import load_distilled

    index, size = inputs["index"], student_size(node.identity, runtime)
    distilled = "label" in inputs
    data = load_distilled(inputs["label"]).training_set(size) if distilled else full_data(index, runtime, size)
    _, accuracies = train_and_measure(node.identity, index, data, node.identity["split"], runtime)
    return {
        "top1": accuracies[-1],
        "top1_best": max(accuracies),
        "accuracies": accuracies,
        "num_images": len(data.images),
    }


def student_size(identity: Mapping, runtime: Runtime) -> int:
    """Return the side of a student's images in pixels."""
    return identity["protocol"].get("image_size") or runtime.dataset.image_size


def train_and_measure(identity: Mapping, index: Path, data, split: str, runtime: Runtime):
    """Train the student that an identity names (``student``, ``protocol``, ``seed``); return it and its accuracies."""
    from ddoq.engine.student import train_student

    seed, size = identity["seed"], student_size(identity, runtime)
    network, normalize = new_student(identity["student"], facts(index), size, seed)
    test, protocol = runtime.tensors(index, split, size), build(identity["protocol"])
    return network, train_student(network, data, test, protocol, normalize, seed, runtime.accelerator)


def new_student(conf: Mapping, index: Mapping, image_size: int, seed: int):
    """Return a freshly initialised student and the normalisation of its inputs."""
    import torch

    from ddoq.engine.student import Normalize
    from ddoq.utils.seeding import item_seed

    torch.manual_seed(item_seed(seed, "weights"))
    network = build(conf, channels=len(index["mean"]), num_classes=len(index["class_names"]), image_size=image_size)
    return network, Normalize(index["mean"], index["std"])


def full_data(index: Path, runtime: Runtime, size: int):
    """Return the train split as a training set: hard labels, no weights."""
    import torch
    from torch.nn.functional import one_hot

    from ddoq.data.distilled import TrainingSet

    images, labels = runtime.tensors(index, "train", size)
    num_classes = len(facts(index)["class_names"])
    return TrainingSet(images, one_hot(labels, num_classes).float(), torch.ones(len(labels)))
