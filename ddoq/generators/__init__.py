"""Generators: from quantized latents to images."""

from ddoq.generators.base import ImageGenerator, Points
from ddoq.generators.decode import Decode
from ddoq.generators.dit import DiT
from ddoq.generators.real import Real

__all__ = ["Decode", "DiT", "ImageGenerator", "Points", "Real"]
