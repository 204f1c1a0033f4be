"""The interface of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """A pair of maps between images ``[B, C, H, W]`` in [-1, 1] and latents ``[B, *shape]`` of about unit variance."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Return the latents of images."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of latents, not clamped."""
