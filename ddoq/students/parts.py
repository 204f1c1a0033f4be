"""What the students share: choices by name, instance norm, and pooling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from ddoq.errors import ConfigError, did_you_mean

T = TypeVar("T")


def choose(key: str, name: str | int, choices: Mapping[str | int, T]) -> T:
    """Return ``choices[name]``; raise ConfigError, naming the config key,
    where there is no such choice.
    """
    if name not in choices:
        raise ConfigError(
            f"{key}: there is no '{name}'", did_you_mean(str(name), map(str, choices))
        )
    return choices[name]


class InstanceNorm(nn.GroupNorm):
    """Instance norm with affine weights: one group per channel,
    which behaves alike in training and testing.
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Return normalised maps ``[B, C, H, W]``.

        Raises:
            ConfigError: a map is a single pixel. It would become zero,
                and the student would be at chance.
        """
        if maps.shape[-2:] == (1, 1):
            raise ConfigError(
                "student.norm: instance norm turns maps of 1×1 pixels, "
                "which this network has, into a constant",
                "set student.norm=batch, a larger protocol.image_size, or another student",
            )
        return super().forward(maps)


class HalvingPool(nn.AvgPool2d):
    """Average pooling of 2×2 pixels: torch's numbers to the last digit, on a CPU two to six
    times as fast.
    """

    def __init__(self):
        super().__init__(2)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps ``[B, C, H // 2, W // 2]`` of ``[B, C, H, W]``."""
        is_even = not (maps.shape[-2] % 2 or maps.shape[-1] % 2)
        is_plain = maps.device.type == "cpu" and maps.dtype == torch.float32
        if is_plain and is_even and maps.is_contiguous():
            return _Halve.apply(maps)
        return super().forward(maps)


class _Halve(torch.autograd.Function):
    """The mean of each 2×2 pixels; keeps nothing for the way back."""

    @staticmethod
    def forward(_, maps: Tensor) -> Tensor:
        upper, lower = maps[..., 0::2, :], maps[..., 1::2, :]
        # in the order in which torch adds, so that rounding is the same
        total = upper[..., 0::2] + upper[..., 1::2]
        return total.add_(lower[..., 0::2]).add_(lower[..., 1::2]).mul_(0.25)

    @staticmethod
    def backward(_, gradient: Tensor) -> Tensor:
        return _Spread.apply(gradient)


class _Spread(torch.autograd.Function):
    """The way back of ``_Halve``, which is that of this."""

    @staticmethod
    def forward(_, maps: Tensor) -> Tensor:
        quarters, (height, width) = 0.25 * maps, maps.shape[-2:]
        spread = maps.new_empty((*maps.shape[:-2], 2 * height, 2 * width))
        lines = spread[..., 0::2, :]
        lines[..., 0::2] = lines[..., 1::2] = quarters
        spread[..., 1::2, :] = lines
        return spread

    @staticmethod
    def backward(_, gradient: Tensor) -> Tensor:
        return _Halve.apply(gradient)
