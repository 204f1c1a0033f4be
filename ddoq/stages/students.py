"""Students and what they are trained on, by a node's identity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ddoq.config.build import build
from ddoq.data.distilled import DistilledDataset, TrainingSet, load_distilled
from ddoq.engine.student import Normalize, train_student
from ddoq.errors import StoreError
from ddoq.evaluation.protocol import Protocol
from ddoq.stages.runtime import Runtime, facts
from ddoq.utils.handover import Handover
from ddoq.utils.seeding import item_seed

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def training_data(identity: Mapping, inputs: Mapping[str, Path], runtime: Runtime) -> tuple[TrainingSet, Protocol]:
    """Return what a student is trained on, the train split where nothing was distilled, and its recipe."""
    known = facts(inputs["index"])
    recipe = resolved(identity, known)
    size = recipe.image_size or runtime.dataset.image_size
    if "label" in inputs:
        return _distilled(load_distilled(inputs["label"]), known["class_names"]).training_set(size), recipe
    images = runtime.tensors(inputs["index"], "train", size)
    return TrainingSet.of_images(*images, len(known["class_names"])), recipe


def _distilled(data: DistilledDataset, class_names: list[str]) -> DistilledDataset:
    """Return a distilled set as it is, if its classes are those of the data, in their order, none without an image."""
    handover = Handover(f"{data.path}", "classes", "remove it and run again", StoreError)
    handover.order(data.class_names, class_names)
    handover.count(len(data.labels.unique()), len(class_names))
    return data


def resolved(identity: Mapping, index: Mapping) -> Protocol:
    """Return the protocol of an identity (``protocol``, ``student``, ``ipc``) after its rules, given the index."""
    num_classes, num_train = len(index["class_names"]), sum(index["counts"]["train"])
    ipc = num_train / num_classes if identity["ipc"] is None else identity["ipc"]
    return Protocol.from_config(identity["protocol"]).resolve(ipc, num_classes, identity["student"]["name"])


def recipe_facts(recipe: Protocol, num_images: int) -> dict:
    """Return what the rules of a protocol made of it for one data set, and its size."""
    return {
        "num_images": num_images,
        "epochs": recipe.epochs,
        "num_steps": recipe.length(num_images),
        "batch_size": min(recipe.batch_size, num_images) if recipe.epochs else recipe.batch_size,
        "learning_rate": recipe.learning_rate,
    }


def train_and_measure(
    identity: Mapping, index: Path, data: TrainingSet, recipe: Protocol, split: str, runtime: Runtime, **options
) -> tuple[Any, dict]:
    """Train the student that an identity names (``student``, ``seed``); return it and its measures on a split."""
    size, seed = data.images.shape[-1], identity["seed"]
    network, normalize = new_student(identity["student"], facts(index), recipe.normalization, size, seed)
    images, labels = runtime.tensors(index, split, round(size / recipe.test_crop))
    margin = (images.shape[-1] - size) // 2
    test = images[..., margin : margin + size, margin : margin + size], labels
    return network, train_student(network, data, test, recipe, normalize, seed, runtime.accelerator, **options)


def new_student(conf: Mapping, index: Mapping, normalized_by: str, image_size: int, seed: int):
    """Return a freshly initialised student and the normalisation of its inputs."""
    torch.manual_seed(item_seed(seed, "weights"))
    network = build(conf, channels=len(index["mean"]), num_classes=len(index["class_names"]), image_size=image_size)
    return network, normalization(normalized_by, index)


def normalization(name: str, index: Mapping):
    """Return the normalisation by the train split (``dataset``) or by ImageNet's published statistics."""
    statistics = _IMAGENET if name == "imagenet" else index
    return Normalize(statistics["mean"], statistics["std"])
