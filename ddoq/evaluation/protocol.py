"""How a student is trained: frozen, named, and the same for every arm of a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Protocol:
    """A training recipe. Every arm gets the same number of gradient steps, the full data included.

    Args:
        num_steps: gradient steps.
        batch_size: images per step.
        optimizer: ``sgd`` (Nesterov momentum 0.9) or ``adamw``.
        learning_rate: at the start; cosine decay to zero.
        weight_decay: decoupled for ``adamw``.
        shift: random translation by up to this many pixels in each direction.
        flip: random horizontal flip.
        num_evaluations: accuracies along the way, at equal distances; the last one is the result.
        num_seeds: students per arm.
        image_size: side of the students' images in pixels, for training and testing; ``None`` for the data set's.
        redraw: draw codebook and images anew for every student, so that the spread of an arm is that of the method
            and not of one draw. Needs one generation per student.
    """

    num_steps: int
    batch_size: int
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4
    shift: int = 0
    flip: bool = False
    num_evaluations: int = 10
    num_seeds: int = 5
    image_size: int | None = None
    redraw: bool = False

    def build_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer."""
        if self.optimizer == "adamw":
            return torch.optim.AdamW(parameters, self.learning_rate, weight_decay=self.weight_decay, fused=True)
        return torch.optim.SGD(
            parameters, self.learning_rate, momentum=0.9, nesterov=True, weight_decay=self.weight_decay
        )
