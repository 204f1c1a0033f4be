"""What the students share: choices by name, and instance norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

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
