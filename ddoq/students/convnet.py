"""The ConvNet of the distillation literature."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn

from ddoq.errors import ConfigError
from ddoq.options import Given, PositiveInt
from ddoq.students.parts import HalvingPool, InstanceNorm, choose

_POOLINGS = {"average": HalvingPool, "max": partial(nn.MaxPool2d, 2), "none": None}
_ACTIVATIONS = {
    "relu": partial(nn.ReLU, inplace=True),
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "swish": nn.SiLU,
}
_NUM_GROUPS = 4  # of group norm


class ConvNet(nn.Module):
    """``depth`` blocks of 3×3 convolution, norm, activation and 2×2 pooling, then a linear layer.

    Gidaris & Komodakis 2018, as used since Zhao et al. 2021 (width 128, depth 3 for 32×32), with
    the variants of the latter's code.

    Args:
        channels: of the image.
        num_classes: outputs.
        image_size: side of the image.
        depth: number of blocks.
        width: channels of every block.
        norm: ``instance``, ``batch``, ``layer`` (over channels and pixels),
            ``group`` (4 groups) or ``none``.
        pooling: ``average``, ``max`` or ``none``.
        activation: ``relu``, ``leaky_relu`` (slope 0.01), ``sigmoid`` or ``swish``.

    Raises:
        ConfigError: no pixel would be left, the width cannot be grouped,
            or there is no such variant.
    """

    def __init__(
        self,
        channels: Given[int],
        num_classes: Given[int],
        image_size: Given[int],
        depth: PositiveInt = 3,
        width: PositiveInt = 128,
        norm: Literal["instance", "batch", "layer", "group", "none"] = "instance",
        pooling: Literal["average", "max", "none"] = "average",
        activation: Literal["relu", "leaky_relu", "sigmoid", "swish"] = "relu",
    ):
        super().__init__()
        pool = choose("student.pooling", pooling, _POOLINGS)
        activate = choose("student.activation", activation, _ACTIVATIONS)
        # Published results for 28×28 images are those of a network that sees them framed by zeros
        # as 32×32, so that its last map is 4×4, as for CIFAR, and not 3×3.
        framed = image_size == 28
        side = 32 if framed else image_size
        if pool and side >> depth < 1:
            raise ConfigError(
                "student.depth: "
                f"{depth} poolings leave nothing of a {image_size}×{image_size} image",
                f"set student.depth to at most {side.bit_length() - 1}",
            )
        layers: list[nn.Module | None] = []
        for i in range(depth):
            layers += [
                nn.Conv2d(
                    channels if i == 0 else width, width, 3, padding=3 if framed and i == 0 else 1
                ),
                _norm(norm, width, side),
                activate(),
                pool() if pool else None,
            ]
            side = side // 2 if pool else side
        self.features = nn.Sequential(*[layer for layer in layers if layer is not None])
        self.classifier = nn.Linear(width * side**2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[B, num_classes]``."""
        return self.classifier(self.features(images).flatten(1))


def _norm(name: str, width: int, side: int) -> nn.Module | None:
    """Return the norm of maps ``[B, width, side, side]``."""
    if name == "group" and width % _NUM_GROUPS:
        raise ConfigError(
            f"student.width: group norm cannot divide {width} channels into {_NUM_GROUPS} groups",
            f"set student.width to a multiple of {_NUM_GROUPS}",
        )
    norms = {
        "instance": partial(InstanceNorm, width),
        "batch": partial(nn.BatchNorm2d, width),
        "layer": partial(nn.LayerNorm, [width, side, side]),
        "group": partial(nn.GroupNorm, _NUM_GROUPS, width),
        "none": lambda: None,
    }
    return choose("student.norm", name, norms)()
