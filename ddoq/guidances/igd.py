"""Influence guidance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ddoq.guidances.base import Shift, Step, Windowed, unit
from ddoq.guidances.influence import Surrogates
from ddoq.options import (
    Given,
    NotNegativeFloat,
    NotNegativeInt,
    OfStages,
    PositiveFloat,
    PositiveInt,
    Share,
)

_REMEMBERED = 64  # finished latents that an image keeps away from
_COORDINATES = 4096  # of the source's latents


@dataclass(kw_only=True)
class SurrogateFit:
    """The training of the run's student on real images, from which surrogates are kept.

    See ``ddoq.stages.fit_surrogates``.

    Args:
        epochs: of the train split.
        batch_size: images per step.
        learning_rate: of SGD with momentum 0.9.
        similarity: an epoch's network is kept where the cosine between its gradients of the classes
            and those of the last one kept falls below this.
        most: networks that are kept.
        seed: of initial weights and batches.
    """

    epochs: PositiveInt = 50
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 0.01
    similarity: Share = 0.7
    most: PositiveInt = 4
    seed: NotNegativeInt = 0


@dataclass(kw_only=True)
class IGD(Windowed):
    """Images are to teach networks what the real ones of their class do, and to differ.

    IGD (ICLR 2025), from its released scripts; its sampler could not be read, so that the form of
    the two steps is taken from a successor (LGD). **Influence**: G, the sum over surrogates of one
    minus the cosine between the gradient of the image's loss and that of 200 real images. The next
    sample is moved by ``scale * sqrt(1 - alpha) * |noise|`` along minus the gradient of G with
    respect to the sample, ``|noise|`` being its norm over 64, about 1 for the source's latents of
    4,096 coordinates: the plain norm, which the notes on the source allow as well, would make a
    step of five times the noise itself. **Deviation**: it is moved by ``-deviation`` times the
    gradient of the cosine between the clean latent and the nearest of the last 64 finished ones of
    its class, times the number of coordinates over 4,096. So both are the source's there, and the
    same share of latents of another length. Neither is scaled by sigma; targets are real images,
    not mirrored. The source's surrogate is a ConvNet-6; here it is the run's student.

    Args:
        surrogates: networks at several points of a training.
        low, high: it acts between these shares of the schedule's time.
        scale: strength of the influence, k; 10 on a fine-tuned DiT.
        deviation: strength of the deviation, gamma; 120 on ImageWoof.
        fit: the training that surrogates come from.
    """

    uses_gradient: ClassVar[bool] = True
    uses_memory: ClassVar[bool] = True
    uses_decoder: ClassVar[bool] = True
    fit: OfStages[SurrogateFit] = SurrogateFit()

    surrogates: Given[Surrogates]
    low: Share = 0.6
    high: Share = 0.92
    scale: NotNegativeFloat = 5.0
    deviation: NotNegativeFloat = 100.0

    def networks(self) -> nn.Module:
        """See ``Guidance.networks``."""
        return self.surrogates

    def shift(self, step: Step) -> Shift:
        """Move the next sample."""
        return self._influence(step) + self._deviation(step)

    def _influence(self, step: Step) -> Shift:
        if not self.scale:
            return Shift()
        labels = step.labels.tolist()
        gradient = step.gradient(lambda z: self.surrogates.misfit(step.decode(z), labels))
        return Shift(mean=-self.scale * noise_level(step) * unit(gradient))

    def _deviation(self, step: Step) -> Shift:
        if not self.deviation or not step.memory.shape[1]:
            return Shift()
        finished = step.memory[:, -_REMEMBERED:].flatten(2)

        def nearest(clean: Tensor) -> Tensor:
            return cosine_similarity(clean.flatten(1).unsqueeze(1), finished, dim=2).amax(1)

        strength = self.deviation * step.clean[0].numel() / _COORDINATES
        return Shift(mean=-strength * step.gradient(nearest))


def noise_level(step: Step) -> Tensor:
    """Return ``sqrt(1 - alpha)`` times the noise's norm over 64, ``[B, 1, 1, 1]``; see ``IGD``."""
    size = step.noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1) / _COORDINATES**0.5
    return (1 - step.alpha) ** 0.5 * size
