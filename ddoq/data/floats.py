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
_PARTITION = "partition"  # in its metadata


def as_floats(images: Tensor) -> Tensor:
    """Return pixels in units of [0, 1]: uint8 divided by 255, floats as they are."""
    return images if images.is_floating_point() else images.float() / 255


def to_bytes(images: Tensor) -> Tensor:
    """Return floats in units of [0, 1] as uint8 pixels; what lies outside is clipped."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def write_floats(folder: Path, images: Tensor, partition: int = 1) -> None:
    """Write float32 images ``[n, C, H, W]`` in units of [0, 1], as they are, to ``FLOATS``.

    ``partition``: each holds so many images in the square. See ``parts_of``.
    """
    metadata = {_PARTITION: str(partition)} if partition > 1 else None
    with atomic_path(folder / FLOATS) as temporary:
        save_file({_IMAGES: images.float().contiguous()}, temporary, metadata)


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


def read_partition(folder: Path) -> int:
    """Return how many images in the square each of ``FLOATS`` holds; 1 where there are none.

    Raises:
        ValueError: it is no number; the caller names the file.
    """
    if not (folder / FLOATS).is_file():
        return 1
    with safe_open(folder / FLOATS, "pt") as file:
        partition = int((file.metadata() or {}).get(_PARTITION, 1))
    if partition < 1:
        raise ValueError(f"each image holds {partition}² images")
    return partition


def parts_of(images: Tensor, partition: int) -> Tensor:
    """Return the images that others hold, ``[n * partition², C, H, W]``; differentiable.

    Each is cut into partition × partition tiles, and each tile enlarged to the whole by bilinear
    interpolation: row by row, those of one image together.

    Args:
        images: floats ``[n, C, H, W]``. Where ``partition`` does not divide a side, the first
            tiles are a pixel larger.
        partition: 1 leaves them as they are.
    """
    if partition == 1:
        return images
    tiles = [
        interpolate(tile, images.shape[-2:], mode="bilinear")
        for row in images.tensor_split(partition, 2)
        for tile in row.tensor_split(partition, 3)
    ]
    return torch.stack(tiles, 1).flatten(0, 1)


def joined(parts: Tensor, partition: int) -> Tensor:
    """Return images that hold others, ``[n, C, H, W]``: what ``parts_of`` undoes but for detail.

    Args:
        parts: floats ``[n * partition², C, H, W]``.
        partition: 1 leaves them as they are.
    """
    if partition == 1:
        return parts
    whole = parts.new_empty((len(parts) // partition**2, *parts.shape[1:]))
    places = [
        tile for row in whole.tensor_split(partition, 2) for tile in row.tensor_split(partition, 3)
    ]
    for place, some in zip(places, parts.unflatten(0, (-1, len(places))).unbind(1), strict=True):
        place.copy_(interpolate(some, place.shape[-2:], mode="bilinear", antialias=True))
    return whole


def resized(images: Tensor, size: int | None) -> Tensor:
    """Return square float images with another side, by antialiased bicubic interpolation.

    ``size`` is the side in pixels; ``None`` leaves them as they are.
    """
    if size is None or images.shape[-2:] == (size, size):
        return images
    return interpolate(images, (size, size), mode="bicubic", antialias=True)
