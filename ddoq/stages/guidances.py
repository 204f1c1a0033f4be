"""Guidances by a node's identity, with what the run gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_model
from torch import Tensor, nn

from ddoq.config.build import build
from ddoq.config.guidances import needs
from ddoq.data.images import with_channels
from ddoq.data.indexed import labels_of
from ddoq.data.latents import StoredLatents
from ddoq.engine.memory import decoding_bytes, free_memory
from ddoq.engine.surrogates import kept_surrogates
from ddoq.errors import StageError
from ddoq.generators import ImageGenerator
from ddoq.guidances import Cells, Guidance
from ddoq.guidances.influence import Surrogates
from ddoq.pipeline.graph import Node
from ddoq.quantizers.codebook import ClassCodebooks
from ddoq.stages.fit_surrogates import new_surrogate
from ddoq.stages.models import load_teacher
from ddoq.stages.runtime import Runtime, facts
from ddoq.utils.weights import loading

_REAL_IMAGES = 200  # of a class, whose gradients surrogates are asked for
_CLASSES_KEPT = 16  # whose latents are remembered


def load_guidance(
    conf: Mapping, node: Node, inputs: Mapping[str, Path], runtime: Runtime
) -> Guidance:
    """Return a guidance of a ``generate`` node.

    Args:
        conf: of the guidance.
        node: whose identity it is from.
        inputs: folders of the node's inputs.
        runtime: how to compute.
    """
    given: dict[str, Any] = {}
    wanted, channels = needs(conf), runtime.dataset.channels
    if "teacher" in wanted:
        teacher = load_teacher(node.inputs["teacher"], inputs, runtime)
        given["teacher"] = _OnDecoded(teacher.logits, teacher, channels)
    if "latents" in wanted:
        given["latents"] = _latents_of_classes(inputs)
    if "surrogates" in wanted:
        name = f"surrogates.{conf['name']}"
        given["surrogates"] = _surrogates(node.inputs[name], inputs[name], inputs["index"], runtime)
    return build(conf, **given)


class _OnDecoded(nn.Module):
    """A classifier of images in [0, 1] that is shown decoded ones.

    Args:
        classify: maps images to logits, differentiable.
        network: what it uses.
        channels: of the data set's images.
    """

    def __init__(self, classify: Callable[[Tensor], Tensor], network: nn.Module, channels: int):
        super().__init__()
        self.classify, self.network, self.channels = classify, network, channels

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of images ``[B, C, H, W]`` in [-1, 1]."""
        return self.classify(with_channels(images, self.channels) / 2 + 0.5)


def _latents_of_classes(inputs: Mapping[str, Path]) -> Callable[[int], Tensor]:
    stored = StoredLatents(inputs["encode"], labels_of(inputs["index"], "train"))
    return lru_cache(_CLASSES_KEPT)(lambda label: stored.of_class(label)[1])


def _surrogates(node: Node, folder: Path, index: Path, runtime: Runtime) -> Surrogates:
    networks = []
    for path in kept_surrogates(folder):
        network = new_surrogate(node, index, facts(folder)["image_size"])
        with loading(f"the surrogate in {path}", "guidance"):
            load_model(network, str(path))
        networks.append(_OnDecoded(network, network, runtime.dataset.channels))
    images = runtime.images(index, "train")

    def real(label: int) -> Tensor:
        positions = np.flatnonzero(images.labels == label)[:_REAL_IMAGES]
        return torch.stack([images[position][1] for position in positions]) / 127.5 - 1

    return Surrogates(networks, real)


def most_at_once(generator: ImageGenerator, shape: tuple[int, ...], device: str) -> int | None:
    """Return how many images fit at once, where a guidance differentiates through the decoder:
    on a CPU, trying would end the process. ``None``: nothing is known to forbid any number.

    Args:
        generator: that is guided.
        shape: of a latent.
        device: where it works.

    Raises:
        StageError: not even one fits.
    """
    guidances = [g for g in generator.guidances if g.uses_decoder]
    needed = decoding_bytes(generator.encoder, shape) if guidances else 0
    if not needed:
        return None
    free = free_memory(device)
    if needed > free:
        raise StageError(
            f"generate: {type(guidances[0]).__name__} differentiates through the decoder, which "
            f"takes about {needed / 1e9:.1f} GB for an image, and {free / 1e9:.1f} GB are free",
            "take a guidance that does not, e.g. guidance=dmgd, smaller images or a larger device",
        )
    return free // needed


def cells_of(points: ClassCodebooks) -> list[Cells]:
    """Return what each class was quantized to, by label."""
    cells = []
    for label in points.labels.unique():
        mine = points.labels == label
        masses = points.counts[mine] / points.counts[mine].sum()
        cells.append(Cells(points.latents[mine], masses.float()))
    return cells
