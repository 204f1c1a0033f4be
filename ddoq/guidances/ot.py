"""Influence guidance with transport to real latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ddoq.guidances.base import Shift, Step, unit
from ddoq.guidances.igd import IGD, noise_level
from ddoq.guidances.transport import transport_cost
from ddoq.options import Given, NotNegativeFloat, PositiveFloat, PositiveInt


@dataclass(kw_only=True)
class OTGuided(IGD):
    """IGD's two steps, and one that brings the latents of a class nearer to real ones.

    OT-guided distillation (NeurIPS 2025), without released code: of its third term is known that it
    is the gradient of a Sinkhorn cost, with the l1 distance, between the class's latents so far and
    a batch of real ones. Its weight, entropy and batch are not known; here the gradient has the
    length of the influence's, ``transport * sqrt(1 - alpha) * |noise|``, and distances are means
    over coordinates. Not scaled by sigma. Real latents are those of the train split as ``encoder``
    makes them, mean or sample, not mirrored; each image draws its own.

    Args:
        latents: real latents of a class ``[n, *shape]``, by label.
        transport: strength of the transport's gradient.
        batch_size: real latents.
        epsilon: of the entropy, in units of distance.
        rounds: of Sinkhorn's iteration.
    """

    latents: Given[Callable[[int], Tensor]]
    transport: NotNegativeFloat = 1.0
    batch_size: PositiveInt = 64
    epsilon: PositiveFloat = 0.05
    rounds: PositiveInt = 20

    def shift(self, step: Step) -> Shift:
        """Move the next sample."""
        if not self.transport:
            return super().shift(step)
        real = step.once("real latents", lambda: self._real(step))

        def cost(clean: Tensor) -> Tensor:
            images = torch.cat([step.memory, clean.unsqueeze(1)], 1).flatten(2)
            distances = torch.cdist(images, real, p=1) / real.shape[2]
            columns = torch.full_like(real[:, :, 0], 1 / real.shape[1])
            return transport_cost(distances, columns, self.epsilon, self.rounds)

        length = self.transport * noise_level(step)
        return super().shift(step) + Shift(mean=-length * unit(step.gradient(cost)))

    def _real(self, step: Step) -> Tensor:
        """Return real latents for each image, ``[B, n, d]``; with repetition, so that classes of
        any size have as many.
        """
        chosen = []
        for label, generator in zip(step.labels.tolist(), step.generators("real"), strict=True):
            latents = self.latents(label).flatten(1)
            rows = torch.randint(len(latents), (self.batch_size,), generator=generator)
            chosen.append(latents[rows])
        return torch.stack(chosen).to(step.sample.device)
