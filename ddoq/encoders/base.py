"""The interface of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """A pair of maps between images ``[B, C, H, W]``
    in [-1, 1] and latents ``[B, *shape]`` of about unit variance.

    ``precision`` is that of the networks, ``storage`` the type in which latents are kept on disk.
    """

    precision: str = "float32"
    storage: torch.dtype = torch.float32

    @property
    def remedy(self) -> str:
        """What to do where latents or images are NaN or infinite."""
        if self.precision != "float32":
            return "set encoder.precision=float32"
        if self.storage == torch.float16:
            return "set encoder.storage=float32, or replace the weights in encoder.path"
        return (
            "replace the weights in encoder.path; "
            "where they were fitted here, lower encoder.fit.learning_rate"
        )

    @abstractmethod
    def encode(self, images: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the latents of images, float32;
        ``seeds``, one per image, are for encoders that draw.
        """

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of latents, float32, not clamped."""
