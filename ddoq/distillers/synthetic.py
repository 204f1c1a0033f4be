"""What is optimised."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Synthetic(nn.Module):
    """K images per class, as pixels.

    Args:
        images: where they start, ``[num_classes, K, C, H, W]`` in the units that networks see.
        sources: position of the training image that each started as, -1 for none; int64
            ``[num_classes, K]``.
    """

    def __init__(self, images: Tensor, sources: Tensor):
        super().__init__()
        self.images = nn.Parameter(images)
        self.register_buffer("sources", sources)

    def __len__(self) -> int:
        return self.sources.numel()

    def forward(self) -> Tensor:
        """Return the images as networks see them, ``[num_classes, K, C, H, W]``; differentiable."""
        return self.images

    @property
    def labels(self) -> Tensor:
        """Class of each image, int64 ``[n]``, class by class."""
        num_classes, num_images = self.sources.shape
        return torch.arange(num_classes).repeat_interleave(num_images)

    @property
    def index(self) -> Tensor:
        """Number of each image within its class, int64 ``[n]``."""
        num_classes, num_images = self.sources.shape
        return torch.arange(num_images).repeat(num_classes)
