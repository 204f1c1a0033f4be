"""The features of a teacher: a space to quantize in, without a way back to images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ddoq.options import Given, OfStages, Representative


class TeacherFeatures(nn.Module):
    """The penultimate features of a teacher, with the interface of an encoder.

    Args:
        teacher: see ``ddoq.labelers.Teacher``.
        representative: of a cell among the latents: the ``mean`` of its members, or the one
            ``nearest`` to its centroid.
    """

    storage = torch.float32
    remedy = "take another teacher"
    representative: OfStages[Representative] = "mean"

    def __init__(self, teacher: Given[nn.Module]):
        super().__init__()
        self.teacher = teacher.requires_grad_(False).eval()

    def encode(self, images: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the features ``[B, F]`` of images ``[B, C, H, W]`` in [-1, 1]."""
        return self.teacher.features((images + 1) / 2).flatten(1)


class TeacherLogits(nn.Module):
    """The logits of a teacher, with the interface of an encoder.

    Args:
        teacher: see ``ddoq.labelers.Teacher``.
    """

    storage = torch.float32
    remedy = TeacherFeatures.remedy

    def __init__(self, teacher: nn.Module):
        super().__init__()
        self.teacher = teacher.requires_grad_(False).eval()

    def encode(self, images: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the logits ``[B, num_classes]`` of images ``[B, C, H, W]`` in [-1, 1]."""
        return self.teacher((images + 1) / 2)
