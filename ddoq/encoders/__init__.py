"""Encoders: images in [-1, 1] to latents and back."""

from ddoq.encoders.base import Encoder
from ddoq.encoders.features import Features
from ddoq.encoders.pixels import Pixels
from ddoq.encoders.taef2 import TAEF2
from ddoq.encoders.vae import VAE

__all__ = ["TAEF2", "VAE", "Encoder", "Features", "Pixels"]
