"""The identity encoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ddoq.encoders.base import Encoder


class Pixels(Encoder):
    """Latents are pixels. Right for images of a few pixels, where a VAE has nothing to compress."""

    def encode(self, images: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return ``images``."""
        return images

    def decode(self, latents: Tensor) -> Tensor:
        """Return ``latents``."""
        return latents
