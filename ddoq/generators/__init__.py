"""Generators: from quantized latents to images."""

from ddoq.generators.base import ImageGenerator, Points
from ddoq.generators.decode import Decode
from ddoq.generators.diffusion import LatentDiffusion
from ddoq.generators.dit import DiT
from ddoq.generators.real import Real
from ddoq.generators.stable_diffusion import StableDiffusion

__all__ = [
    "Decode",
    "DiT",
    "ImageGenerator",
    "LatentDiffusion",
    "Points",
    "Real",
    "StableDiffusion",
]
