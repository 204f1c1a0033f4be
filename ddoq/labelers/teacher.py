"""What every teacher does: from images in [0, 1] to logits in the label order of the data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ddoq.errors import ConfigError
from ddoq.options import Given, OfStages


class Teacher(nn.Module):
    """A finished classifier with all that its inputs and outputs need, without gradients.

    Args:
        network: maps normalised images to logits; its last linear layer is the classifier.
            It is frozen in place.
        mean: of the channels of the images it was trained on, in [0, 1].
        std: their standard deviation.
        image_size: side to which images are resized; ``None``: they come as they are.
        columns: which output is which label of the data set; ``None``: the outputs are its labels.
        student: that the run trains on the full train split to be the teacher; ``None``: its own.
        protocol: by which it is trained; ``None``: the run's.
    """

    student: OfStages[Any] = None
    protocol: OfStages[Any] = None

    def __init__(
        self,
        network: Given[nn.Module],
        mean: Given[Sequence[float]],
        std: Given[Sequence[float]],
        image_size: Given[int | None] = None,
        columns: Given[Sequence[int] | None] = None,
    ):
        super().__init__()
        self.network, self.image_size = network.requires_grad_(False), image_size
        chosen = range(last_linear(network)[1].out_features) if columns is None else columns
        self.register_buffer("columns", torch.tensor(list(chosen)), persistent=False)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        self.eval()

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return len(self.columns)

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode: a teacher is often part of a module that is trained."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[B, num_classes]`` of images ``[B, C, H, W]`` in [0, 1]."""
        return self.logits(images)

    def logits(self, images: Tensor) -> Tensor:
        """Return the same, with the gradient of the images."""
        return self.network(self._prepared(images))[:, self.columns]

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return what the classifier sees, ``[B, F]``, of images ``[B, C, H, W]`` in [0, 1]."""
        return penultimate(self.network, self._prepared(images))

    def _prepared(self, images: Tensor) -> Tensor:
        if images.shape[1] == 1:
            images = images.expand(-1, self.mean.shape[1], -1, -1)
        if self.image_size and images.shape[-2:] != (self.image_size, self.image_size):
            images = interpolate(
                images, (self.image_size, self.image_size), mode="bilinear", antialias=True
            )
        return (images - self.mean) / self.std


class Ensemble(nn.Module):
    """Several teachers at once: the mean of their logits, and their features side by side.

    Args:
        members: the teachers by name.
    """

    def __init__(self, members: Mapping[str, nn.Module]):
        super().__init__()
        if not members:
            raise ConfigError(
                "teacher.members: an ensemble of nothing",
                "add one: +teacher@teacher.members.a=resnet18",
            )
        self.members = nn.ModuleList(members.values())
        self.eval()

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.members[0].num_classes

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[B, num_classes]`` of images ``[B, C, H, W]`` in [0, 1]."""
        return torch.stack([member(images) for member in self.members]).mean(0)

    def logits(self, images: Tensor) -> Tensor:
        """Return the same, with the gradient of the images."""
        return torch.stack([member.logits(images) for member in self.members]).mean(0)

    def features(self, images: Tensor) -> Tensor:
        """Return the features of all members, ``[B, F]``."""
        return torch.cat([member.features(images) for member in self.members], 1)


def penultimate(network: nn.Module, images: Tensor, key: str = "teacher") -> Tensor:
    """Return what the last linear layer of a classifier sees, ``[B, F]``; differentiable.

    Args:
        network: maps images to logits.
        images: ``[B, C, H, W]`` as it takes them.
        key: of the network's configuration, for errors.

    Raises:
        ConfigError: there is no such layer.
    """
    seen: list[Tensor] = []
    layer = last_linear(network, key)[1]
    with layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        network(images)
    return seen[0].flatten(1)


def last_linear(network: nn.Module, key: str = "teacher") -> tuple[str, nn.Linear]:
    """Return the name and the layer of a classifier's last linear layer.

    Args:
        network: a classifier.
        key: of its configuration, for errors.

    Raises:
        ConfigError: there is none.
    """
    layers = [
        (name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)
    ]
    if not layers:
        raise ConfigError(
            f"{key}: {type(network).__name__} has no linear layer, so its features are not known",
            "take a network that ends in one",
        )
    return layers[-1]
