"""Decode the centroids, without diffusion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ddoq.encoders.base import Encoder
from ddoq.generators.base import ImageGenerator, Points, decoded
from ddoq.options import Given


class Decode(ImageGenerator):
    """``x_k = D(z_k)``: shows what the diffusion adds."""

    def __init__(self, encoder: Given[Encoder]):
        self.encoder = encoder

    def networks(self) -> nn.Module:
        """See ``ImageGenerator.networks``."""
        return self.encoder

    @torch.inference_mode()
    def generate(self, points: Points) -> Tensor:
        """Return the decoded latents."""
        return decoded(self.encoder, points.latents)
