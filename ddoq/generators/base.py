"""The interface of a generator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ddoq.encoders.base import Encoder
from ddoq.guidances.base import Guidance
from ddoq.utils.handover import Handover


@dataclass(frozen=True)
class Points:
    """A batch of quantized points.

    Attributes:
        latents: ``[B, *shape]``.
        labels: class of each point ``[B]``, int64.
        sources: position of the nearest training image ``[B]``, int64.
        seeds: one noise seed per point; an image's noise is its own, whatever batch it is in.
    """

    latents: Tensor
    labels: Tensor
    sources: Tensor
    seeds: list[int]

    def __len__(self) -> int:
        return len(self.seeds)

    def part(self, rows: slice) -> Points:
        """Return some of the points."""
        return Points(self.latents[rows], self.labels[rows], self.sources[rows], self.seeds[rows])

    def at(self, rows: list[int]) -> Points:
        """Return the points of some rows."""
        tensors = (part[rows] for part in (self.latents, self.labels, self.sources))
        return Points(*tensors, [self.seeds[row] for row in rows])


class ImageGenerator(ABC):
    """Turns points into images. (``torch.Generator`` is the random number generator.)

    ``guidances`` steer it; none by default.
    """

    guidances: Sequence[Guidance] = ()

    @abstractmethod
    def generate(self, points: Points) -> Tensor:
        """Return images ``[B, C, H, W]`` in [-1, 1]."""

    def networks(self) -> nn.Module:
        """Return everything that has to be on the device; nothing by default."""
        return nn.Identity()


def decoded(encoder: Encoder, latents: Tensor) -> Tensor:
    """Return the images ``[B, C, H, W]`` of latents, clamped to [-1, 1].

    Raises:
        StageError: the decoder produced NaN or infinite values,
            which clamping would turn into black and white.
    """
    return (
        Handover("generate", "decoded images", encoder.remedy)
        .finite(encoder.decode(latents))
        .clamp(-1, 1)
    )
