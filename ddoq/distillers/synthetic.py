"""What is optimised."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ddoq.data.floats import joined, parts_of


class Synthetic(nn.Module):
    """K stored images per class, as pixels; each may hold several images.

    Args:
        images: where they start, ``[num_classes, K * partition², C, H, W]`` in the units that
            networks see.
        sources: position of the training image that each of these is, -1 for none; int64
            ``[num_classes, K * partition²]``.
        partition: so many images in the square are stored as one.

    Attributes:
        images: what is stored, ``[num_classes, K, C, H, W]``.
        sources: of these, ``[num_classes, K]``; -1 for none or several.
    """

    def __init__(self, images: Tensor, sources: Tensor, partition: int = 1):
        super().__init__()
        self.partition = partition
        stored = joined(images.flatten(0, 1), partition)
        self.images = nn.Parameter(stored.unflatten(0, (len(images), -1)))
        several = torch.full(self.images.shape[:2], -1)
        self.register_buffer("sources", sources if partition == 1 else several)

    def __len__(self) -> int:
        return self.sources.numel()

    def forward(self) -> Tensor:
        """Return the images as networks see them; differentiable.

        They are ``[num_classes, K * partition², C, H, W]``.
        """
        parts = parts_of(self.images.flatten(0, 1), self.partition)
        return parts.unflatten(0, (len(self.images), -1))

    @property
    def labels(self) -> Tensor:
        """Class of each image, int64 ``[n]``, class by class."""
        return labels_of(self.sources).cpu()

    @property
    def index(self) -> Tensor:
        """Number of each image within its class, int64 ``[n]``."""
        num_classes, num_images = self.sources.shape
        return torch.arange(num_images).repeat(num_classes)


def labels_of(images: Tensor) -> Tensor:
    """Return the class of each of ``[num_classes, n, ...]`` images, int64 ``[num_classes * n]``."""
    classes = torch.arange(len(images), device=images.device)
    return classes.repeat_interleave(images.shape[1])
