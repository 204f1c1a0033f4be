"""Images as floats: where a method optimises pixels, students see them unclipped."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import interpolate

from ddoq.utils.io import atomic_path

FLOATS = "images.safetensors"
_IMAGES = "images"  # the one tensor of the file


def as_floats(images: Tensor) -> Tensor:
    """Return pixels in units of [0, 1]: uint8 divided by 255, floats as they are."""
    return images if images.is_floating_point() else images.float() / 255


def to_bytes(images: Tensor) -> Tensor:
    """Return floats in units of [0, 1] as uint8 pixels; what lies outside is clipped."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def write_floats(folder: Path, images: Tensor) -> None:
    """Write float32 images ``[n, C, H, W]`` in units of [0, 1], as they are, to ``FLOATS``."""
    with atomic_path(folder / FLOATS) as temporary:
        save_file({_IMAGES: images.float().contiguous()}, temporary)


def read_floats(folder: Path, num_images: int) -> Tensor:
    """Read what ``write_floats`` wrote.

    Raises:
        ValueError: they are not so many finite float32 images; the caller names the file.
    """
    with safe_open(folder / FLOATS, "pt") as file:
        images = file.get_tensor(_IMAGES)
    if images.dtype != torch.float32 or images.ndim != 4 or len(images) != num_images:
        raise ValueError(f"{images.dtype} {list(images.shape)} instead of {num_images} images")
    if not images.isfinite().all():
        raise ValueError("there are images with NaN or infinite pixels")
    return images


def resized(images: Tensor, size: int | None) -> Tensor:
    """Return square float images with another side, by antialiased bicubic interpolation.

    ``size`` is the side in pixels; ``None`` leaves them as they are.
    """
    if size is None or images.shape[-2:] == (size, size):
        return images
    return interpolate(images, (size, size), mode="bicubic", antialias=True)
