"""Variational autoencoders of diffusers, pretrained or fitted by ddoq."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ddoq.encoders.base import Encoder
from ddoq.utils.pretrained import load_pretrained

_CLASSES = ("AutoencoderKL", "AutoencoderTiny")


class VAE(Encoder):
    """``z = (E(x) - shift) * scale`` and ``x = D(z / scale + shift)``.

    Scale and shift are the model's own ``scaling_factor`` and ``shift_factor``.

    Args:
        path: a folder saved by diffusers' ``save_pretrained``, or a hub id. Holds an ``AutoencoderKL`` or
            ``AutoencoderTiny``, at the top or in the sub-folder ``vae``.
        posterior: ``mode``, or ``sample``: one draw per image, as D4M does. A tiny autoencoder has no posterior.
        precision: of the network: ``float32``, ``bfloat16`` or ``float16``.
        storage: of latents on disk: ``float32`` or ``float16``.
    """

    def __init__(self, path: str, posterior: str = "mode", precision: str = "float32", storage: str = "float32"):
        super().__init__()
        self.vae = load_pretrained(path, _CLASSES, "vae", "encoder.path", precision)
        self.posterior, self.precision, self.storage = posterior, precision, getattr(torch, storage)
        self.scale = float(self.vae.config.scaling_factor)
        self.shift = float(getattr(self.vae.config, "shift_factor", None) or 0.0)

    def encode(self, images: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the scaled latents. Grey images are fed as RGB to a model that wants three channels."""
        wanted = self.vae.config.in_channels
        images = images.expand(-1, wanted, -1, -1) if images.shape[1] == 1 else images
        encoded = self.vae.encode(images.to(self.vae.dtype))
        if not hasattr(encoded, "latent_dist"):
            latents = encoded.latents.float()
        elif self.posterior == "mode":
            latents = encoded.latent_dist.mode().float()
        else:
            latents = _draw(encoded.latent_dist, seeds)
        return (latents - self.shift) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Return images ``[B, C, H, W]``."""
        return self.vae.decode((latents / self.scale + self.shift).to(self.vae.dtype)).sample.float()


def _draw(posterior, seeds: Sequence[int]) -> Tensor:
    """Return one draw per image, each from its own seed."""
    mean, std = posterior.mean.float(), posterior.std.float()
    draws = [torch.randn(mean.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return mean + std * torch.stack(draws).to(mean.device)
