"""Differentiable Siamese augmentation (Zhao & Bilen 2021).

To train students it is not Siamese: one operation is drawn per batch, its parameters per image.
Methods that match real and synthetic images give both the same draw (``siamese``). The ranges are
those of the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from ddoq.errors import ConfigError, did_you_mean

_BRIGHTNESS, _SATURATION, _CONTRAST = 1.0, 2.0, 0.5
_SCALE, _DEGREES = 1.2, 15.0
_PAD, _CUTOUT = 0.125, 0.5  # shares of the image's side


def take(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return pixels ``out[b, c, i, j] = images[b, c, rows[b, i], columns[b, j]]``.

    Args:
        images: ``[B, C, H, W]``.
        rows: int64 ``[B, h]``.
        columns: int64 ``[B, w]``.
    """
    num, channels, height, width = images.shape
    # Whole rows first, then columns: three times as fast on a CPU as indexing both at once.
    starts = torch.arange(num * channels, device=images.device).view(num, channels, 1) * height
    lines = images.reshape(-1, width).index_select(0, (starts + rows[:, None]).flatten())
    lines = lines.view(num, channels, rows.shape[1], width)
    return lines.gather(3, columns[:, None, None].expand(-1, channels, rows.shape[1], -1))


def draw_dsa(
    strategy: str, num_images: int, image_size: int, generator: Generator
) -> dict[str, Tensor]:
    """Draw one operation for the batch and its parameters for every image.

    Args:
        strategy: names of ``OPERATIONS`` joined by ``_``; each is drawn with the same probability.
        num_images: B.
        image_size: side in pixels.
        generator: on the CPU.

    Returns:
        One entry, ``dsa_<operation>``, ``[B, ...]``: color has an offset and two factors, crop a
        translation in pixels, cutout a centre in pixels, flip a bool, scale a factor per axis,
        rotate an angle in radians.
    """
    names = strategy.split("_")
    name = names[int(torch.randint(len(names), (), generator=generator))]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(num_images, *shape, generator=generator)

    if name == "color":
        low = torch.tensor([-_BRIGHTNESS / 2, 0.0, _CONTRAST])
        drawn = low + torch.tensor([_BRIGHTNESS, _SATURATION, 1.0]) * uniform(0, 1, 3)
    elif name == "crop":
        reach = _share(image_size, _PAD)
        drawn = torch.randint(-reach, reach + 1, (num_images, 2), generator=generator)
    elif name == "cutout":
        # A box of even side has its centre between two pixels, so it may lie one pixel further.
        last = image_size - _share(image_size, _CUTOUT) % 2
        drawn = torch.randint(last + 1, (num_images, 2), generator=generator)
    elif name == "flip":
        drawn = uniform(0, 1) < 0.5
    elif name == "scale":
        drawn = uniform(1 / _SCALE, _SCALE, 2)
    else:
        drawn = uniform(-math.radians(_DEGREES), math.radians(_DEGREES))
    return {f"dsa_{name}": drawn}


def siamese(images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
    """Return normalised images ``[B, C, H, W]``, all augmented alike; differentiable.

    ``draws``: of ``draw_dsa`` for one image, ``[1, ...]``; empty for none.
    """
    alike = {name: drawn.expand(len(images), *drawn.shape[1:]) for name, drawn in draws.items()}
    return apply_dsa(images, alike)


def apply_dsa(images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
    """Return normalised images ``[B, C, H, W]``, augmented by what was drawn; differentiable.

    ``draws``: of ``draw_dsa`` for so many images; what is not of DSA is left aside.
    """
    for name, operation in OPERATIONS.items():
        if f"dsa_{name}" in draws:
            images = operation(images, draws[f"dsa_{name}"])
    return images


def check_operations(strategy: str, key: str) -> None:
    """Raise ConfigError, naming ``key``, where a strategy has an operation that there is not."""
    for name in strategy.split("_") if strategy else []:
        if name not in OPERATIONS:
            cause = f"{key}: there is no operation '{name}'"
            raise ConfigError(cause, did_you_mean(name, OPERATIONS))


def _share(side: int, share: float) -> int:
    return int(side * share + 0.5)


def _color(images: Tensor, drawn: Tensor) -> Tensor:
    brightness, saturation, contrast = drawn[..., None, None, None].unbind(1)
    images = images + brightness
    images = torch.lerp(images.mean(1, keepdim=True), images, saturation)
    return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast)


def _crop(images: Tensor, drawn: Tensor) -> Tensor:
    height, width = images.shape[2:]
    above, left = _share(height, _PAD), _share(width, _PAD)
    rows = torch.arange(height, device=images.device) + above + drawn[:, :1]
    columns = torch.arange(width, device=images.device) + left + drawn[:, 1:]
    return take(pad(images, (left, left, above, above)), rows, columns)


def _cutout(images: Tensor, drawn: Tensor) -> Tensor:
    inside = []
    for size, centre in zip(images.shape[2:], drawn.unbind(1), strict=True):
        side = _share(size, _CUTOUT)
        offset = torch.arange(size, device=images.device) - (centre[:, None] - side // 2)
        inside.append((offset >= 0) & (offset < side))
    rows, columns = inside
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None], 0)


def _flip(images: Tensor, drawn: Tensor) -> Tensor:
    return torch.where(drawn[:, None, None, None], images.flip(3), images)


def _scale(images: Tensor, drawn: Tensor) -> Tensor:
    return _warp(images, torch.diag_embed(drawn))


def _rotate(images: Tensor, drawn: Tensor) -> Tensor:
    cos, sin = drawn.cos(), drawn.sin()
    return _warp(images, torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2))


def _warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Sample at ``matrices @ (x, y)``, coordinates from -1 to 1 over the image; zero outside."""
    theta = torch.cat([matrices, torch.zeros_like(matrices[..., :1])], 2).to(images.dtype)
    return grid_sample(
        images, affine_grid(theta, images.shape, align_corners=False), align_corners=False
    )


#: From normalised images ``[B, C, H, W]`` and what was drawn to augmented images.
OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}
