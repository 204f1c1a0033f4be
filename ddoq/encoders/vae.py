"""Variational autoencoders of diffusers, pretrained or fitted by ddoq."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ddoq.encoders.base import Encoder
from ddoq.options import (
    Decided,
    NotNegativeFloat,
    NotNegativeInt,
    OfStages,
    PositiveFloat,
    PositiveInt,
    Precision,
    Storage,
)
from ddoq.utils.pretrained import load_pretrained
from ddoq.utils.scaling import VAE_SCALES, latent_scale


@dataclass(kw_only=True)
class VAEFit:
    """A small diffusers ``AutoencoderKL`` fitted on the train split.

    See ``ddoq.stages.fit_encoder``.

    Args:
        block_out_channels: of each block; there is a halving between two blocks.
        latent_channels: channels of the latents.
        num_steps: gradient steps.
        batch_size: images per step.
        learning_rate: of AdamW at its highest; a cosine takes it to 0.
        kl_weight: of the divergence from N(0, 1).
        seed: of initial weights and batches.
    """

    block_out_channels: Sequence[PositiveInt] = (32, 64)
    latent_channels: PositiveInt = 4
    num_steps: PositiveInt = 500
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 2e-3
    kl_weight: NotNegativeFloat = 1e-4
    seed: NotNegativeInt = 0


class VAE(Encoder):
    """``z = (E(x) - shift) * scale`` and ``x = D(z / scale + shift)``;
    see ``ddoq.utils.scaling`` for the two.

    Args:
        path: a folder saved by diffusers' ``save_pretrained``, or a hub id. Holds an
            ``AutoencoderKL`` or ``AutoencoderTiny``, at the top or in the sub-folder
            ``vae``. Or one file of weights, in the names of diffusers or of CompVis, beside
            its ``config.json``. ``None``: fitted by ``fit``.
        posterior: ``mode``, or ``sample``: one draw per image, as D4M does.
            A tiny autoencoder has no posterior.
        precision: of the network.
        storage: of latents on disk.
        fit: the autoencoder that is fitted where there is no ``path``.
    """

    fit: OfStages[VAEFit] = VAEFit()

    def __init__(
        self,
        path: Decided[str],
        posterior: Literal["mode", "sample"] = "mode",
        precision: Precision = "float32",
        storage: Storage = "float32",
    ):
        super().__init__()
        self.vae = load_pretrained(path, tuple(VAE_SCALES), "vae", "encoder.path", precision)
        self.posterior, self.precision, self.storage = posterior, precision, getattr(torch, storage)
        scaling = latent_scale(
            {**self.vae.config, "_class_name": type(self.vae).__name__}, "encoder.path"
        )
        self._keep("shift", scaling.shift)
        self._keep("scale", scaling.scale)

    def _keep(self, name: str, value: float | tuple[float, ...]) -> None:
        """Keep a number as it is, those of channels as a tensor ``[C, 1, 1]``
        that moves with the model.
        """
        if isinstance(value, tuple):
            self.register_buffer(name, torch.tensor(value).view(-1, 1, 1), persistent=False)
        else:
            setattr(self, name, value)

    def encode(self, images: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the scaled latents.

        Grey images are fed as RGB to a model that wants three channels.
        """
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
        return self.vae.decode(
            (latents / self.scale + self.shift).to(self.vae.dtype)
        ).sample.float()


def _draw(posterior, seeds: Sequence[int]) -> Tensor:
    """Return one draw per image, each from its own seed."""
    mean, std = posterior.mean.float(), posterior.std.float()
    draws = [
        torch.randn(mean.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    return mean + std * torch.stack(draws).to(mean.device)
