"""Variational autoencoders of diffusers, pretrained or fitted by ddoq."""

from __future__ import annotations

from torch import Tensor

from ddoq.encoders.base import Encoder
from ddoq.utils.pretrained import load_pretrained

_CLASSES = ("AutoencoderKL", "AutoencoderTiny")


class VAE(Encoder):
    """``z = (E(x) - shift) * scale`` with the mode of the posterior; ``x = D(z / scale + shift)``.

    Scale and shift are the model's own ``scaling_factor`` and ``shift_factor``.

    Args:
        path: a folder saved by diffusers' ``save_pretrained``, or a hub id. Holds an ``AutoencoderKL`` or
            ``AutoencoderTiny``, at the top or in the sub-folder ``vae``.
    """

    def __init__(self, path: str):
        super().__init__()
        self.vae = load_pretrained(path, _CLASSES, "vae", key="encoder.path").requires_grad_(False).eval()
        self.scale = float(self.vae.config.scaling_factor)
        self.shift = float(getattr(self.vae.config, "shift_factor", None) or 0.0)

    def encode(self, images: Tensor) -> Tensor:
        """Return the scaled posterior modes. Grey images are fed as RGB to a model that wants three channels."""
        wanted = self.vae.config.in_channels
        images = images.expand(-1, wanted, -1, -1) if images.shape[1] == 1 else images
        encoded = self.vae.encode(images)
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return (latents - self.shift) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Return images ``[B, C, H, W]``."""
        return self.vae.decode(latents / self.scale + self.shift).sample
