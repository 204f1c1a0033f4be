"""The interface of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """A pair of maps between images ``[B, C, H, W]`` in [-1, 1] and latents ``[B, *shape]`` of about unit variance.

    ``storage`` is the type in which latents are kept on disk.
    """

    storage: torch.dtype = torch.float32

    @abstractmethod
    def encode(self, images: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the latents of images, float32; ``seeds``, one per image, are for encoders that draw."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of latents, float32, not clamped."""
