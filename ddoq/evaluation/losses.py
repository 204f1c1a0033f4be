"""Losses, one value per image: weights are applied afterwards."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax


def hard_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy ``[B]`` of logits ``[B, C]`` against label
    distributions ``[B, C]``.
    """
    return cross_entropy(logits, targets, reduction="none")


def soft_loss(logits: Tensor, teacher: Tensor, kind: str, temperature: float) -> Tensor:
    """Return how far a student's logits are from a teacher's.

    Args:
        logits: of the student ``[B, C]``.
        teacher: logits of the teacher ``[B, C]``.
        kind: ``kl``: KL(softmax(teacher / T) || softmax(logits / T)), summed over classes, not
            multiplied by T² (SRe2L, RDED); ``mse``: the mean squared difference over classes (EDC).
        temperature: T.

    Returns:
        ``[B]``.
    """
    if kind == "mse":
        return (logits - teacher).square().mean(1)
    student, target = log_softmax(logits / temperature, 1), log_softmax(teacher / temperature, 1)
    return kl_div(student, target, reduction="none", log_target=True).sum(1)
