"""Uncertainty-aware guidance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ddoq.guidances.base import Shift, Step, Windowed
from ddoq.options import Given, NotNegativeFloat, Share


@dataclass(kw_only=True)
class UAG(Windowed):
    """The predicted noise is shifted by ``-scale * sqrt(1 - alpha)`` times the gradient of the
    teacher's entropy on the decoded image, with respect to the sample: images become uncertain.

    UAG, from a third-party reproduction. The source's classifier is a ResNet-18 of 200 epochs that
    sees 224 pixels; here it is the run's teacher, at its own size. The shift comes after
    classifier-free guidance, on all channels; decoded images are not clamped. No latents are
    targets.

    Args:
        teacher: maps images ``[B, C, H, W]`` in [-1, 1] to logits, differentiable.
        low, high: it acts between these shares of the schedule's time.
        scale: strength, lambda.
    """

    uses_gradient: ClassVar[bool] = True
    uses_decoder: ClassVar[bool] = True

    teacher: Given[nn.Module]
    low: Share = 0.0
    high: Share = 0.796
    scale: NotNegativeFloat = 10.0

    def networks(self) -> nn.Module:
        """See ``Guidance.networks``."""
        return self.teacher

    def shift(self, step: Step) -> Shift:
        """Shift the noise."""
        gradient = step.gradient(lambda clean: entropy(self.teacher(step.decode(clean))))
        return Shift(noise=-self.scale * (1 - step.alpha) ** 0.5 * gradient)


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of predictions ``[B, classes]`` in nats, ``[B]``."""
    logarithms = logits.log_softmax(1)
    return -(logarithms.exp() * logarithms).sum(1)
