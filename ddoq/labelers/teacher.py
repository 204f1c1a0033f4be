"""Soft labels from a teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ddoq.errors import StageError


class Teacher:
    """Class probabilities of a teacher network at a temperature, one distribution per image.

    Args:
        network: maps normalised images to logits.
        normalize: maps uint8 images to what the network was trained on.
        temperature: of the softmax; the student's loss uses the same.
    """

    needs_teacher = True

    def __init__(self, network: nn.Module, normalize, temperature: float = 4.0):
        self.network, self.normalize, self.temperature = network.eval(), normalize, temperature

    @torch.inference_mode()
    def __call__(self, images: Tensor, labels: Tensor, num_classes: int) -> Tensor:
        """Return targets ``[n, num_classes]`` for uint8 images ``[n, C, H, W]``.

        Raises:
            StageError: the teacher's outputs are NaN or infinite.
        """
        logits = self.network(self.normalize(images))
        if not logits.isfinite().all():
            raise StageError(
                "label: the teacher's outputs are NaN or infinite", "train it again with run.from=fit_teacher"
            )
        return (logits / self.temperature).softmax(1)
