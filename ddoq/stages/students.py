"""Students and what they are trained on, by a node's identity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ddoq.config.build import build
from ddoq.data.distilled import DistilledDataset, TrainingSet, load_distilled
from ddoq.data.index_facts import IndexFacts
from ddoq.engine.student import Normalize, train_student
from ddoq.errors import StoreError
from ddoq.evaluation.protocol import Protocol
from ddoq.stages.runtime import Runtime, index_facts
from ddoq.utils.handover import Handover
from ddoq.utils.seeding import item_seed

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation


def training_data(
    identity: Mapping, inputs: Mapping[str, Path], runtime: Runtime
) -> tuple[TrainingSet, Protocol]:
    """Return what a student is trained on, the train split
    where nothing was distilled, and its recipe.
    """
    index = index_facts(inputs["index"])
    recipe = resolved(identity, index)
    size = recipe.image_size or runtime.dataset.image_size
    if "label" in inputs:
        data = distilled_set(inputs["label"], inputs["index"])
        return data.training_set(size, from_pngs=identity.get("pixels") == "pngs"), recipe
    images = runtime.tensors(inputs["index"], "train", size)
    return TrainingSet.of_images(*images, index.num_classes), recipe


def distilled_set(folder: Path, index: Path) -> DistilledDataset:
    """Return a distilled set, if its classes are those of the data, in their order,
    none without an image.
    """
    data, class_names = load_distilled(folder), index_facts(index).class_names
    handover = Handover(f"{data.path}", "classes", "remove it and run again", StoreError)
    handover.order(data.class_names, class_names)
    handover.count(len(data.labels.unique()), len(class_names))
    return data


def resolved(identity: Mapping, index: IndexFacts) -> Protocol:
    """Return the protocol of an identity (``protocol``, ``student``, ``ipc``) after its rules,
    given the index.
    """
    ipc = identity["ipc"]
    if ipc is None:  # the full data
        ipc = sum(index.counts["train"]) / index.num_classes
    protocol = Protocol.from_config(identity["protocol"])
    return protocol.resolve(ipc, index.num_classes, identity["student"]["name"])


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
    identity: Mapping,
    index: Path,
    data: TrainingSet,
    recipe: Protocol,
    split: str,
    runtime: Runtime,
    **options,
) -> tuple[nn.Module, dict]:
    """Train the student that an identity names (``student``, ``seed``);
    return it and its measures on a split.
    """
    size = data.images.shape[-1]
    images, labels = runtime.tensors(index, split, round(size / recipe.test_crop))
    margin = (images.shape[-1] - size) // 2
    test = images[..., margin : margin + size, margin : margin + size], labels
    return train_and_test(identity, index, data, recipe, test, runtime, **options)


def train_and_test(
    identity: Mapping,
    index: Path,
    data: TrainingSet,
    recipe: Protocol,
    test: tuple[torch.Tensor, torch.Tensor],
    runtime: Runtime,
    **options,
) -> tuple[nn.Module, dict]:
    """Train the student that an identity names (``student``, ``seed``); return it and its measures
    on uint8 images ``[n, C, H, W]``, as large as those that it is trained on, with labels ``[n]``.
    """
    size, seed = data.images.shape[-1], identity["seed"]
    network, normalize = new_student(
        identity["student"], index_facts(index), recipe.normalization, size, seed
    )
    return network, train_student(
        network, data, test, recipe, normalize, seed, runtime.accelerator, **options
    )


def new_student(
    conf: Mapping, index: IndexFacts, normalized_by: str, image_size: int, seed: int
) -> tuple[nn.Module, Normalize]:
    """Return a freshly initialised student and the normalisation of its inputs."""
    torch.manual_seed(item_seed(seed, "weights"))
    network = build(
        conf, channels=index.num_channels, num_classes=index.num_classes, image_size=image_size
    )
    return network, normalization(normalized_by, index)


def normalization(name: str, index: IndexFacts) -> Normalize:
    """Return the normalisation by the train split
    (``dataset``) or by ImageNet's published statistics.
    """
    if name == "imagenet":
        return Normalize(*_IMAGENET)
    return Normalize(index.mean, index.std)
