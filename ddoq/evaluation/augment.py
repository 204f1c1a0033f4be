"""Augmentation of a whole batch on its device, from random numbers drawn beforehand."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad


def draw_augmentation(num_images: int, shift: int, flip: bool, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return shifts in pixels, int64 ``[B, 2]`` in [-shift, shift], and flips, bool ``[B]``."""
    shifts = torch.randint(-shift, shift + 1, (num_images, 2), generator=generator)
    flips = torch.rand(num_images, generator=generator) < (0.5 if flip else 0.0)
    return shifts, flips


def augment(images: Tensor, shifts: Tensor, flips: Tensor, shift: int) -> Tensor:
    """Translate (repeating the border) and mirror images ``[B, C, H, W]``, each by its own draw."""
    if shift:
        num, _, height, width = images.shape
        padded = pad(images, (shift,) * 4, mode="replicate")
        rows = shifts[:, :1] + shift + torch.arange(height, device=images.device)
        columns = shifts[:, 1:] + shift + torch.arange(width, device=images.device)
        batch = torch.arange(num, device=images.device)[:, None, None]
        images = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return torch.where(flips[:, None, None, None], images.flip(3), images)
