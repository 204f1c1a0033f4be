"""CoDA's pull of the conditional half."""

from __future__ import annotations

from dataclasses import dataclass

from ddoq.guidances.base import Shift, Step, Windowed
from ddoq.options import NotNegativeFloat, PositiveFloat, Share


@dataclass(kw_only=True)
class CoDA(Windowed):
    """The noise predicted with the class is shifted by ``-scale * (point - clean)``, before
    classifier-free guidance multiplies it.

    CoDA (2026), from its released code, which scales by ``sqrt(alpha / (1 - alpha))`` and its
    inverse: no sigma is left. ``clean`` is taken from the conditional half here; what is known of
    the source leaves open from which. It pulls 0.9 of 25 Euler steps of Stable Diffusion XL at a
    guidance scale of 5, towards the real latent (posterior mean, images squashed, not mirrored)
    nearest to a centre of UMAP and HDBSCAN: ``quantizer=nearest`` or ``kmedoids`` comes near. In
    terms of clean latents the pull is the guidance scale times ``scale * sqrt((1 - alpha) /
    alpha)``, more than all of the way at the noisiest steps of the source, where the root is 14.6.
    Schedules go on from there: ``squaredcos_cap_v2`` to 10,000.

    Args:
        low, high: it acts between these shares of the schedule's time.
        scale: strength of the pull, gamma.
        noisiest: of that root: above it, clean latents are pulled as at it.
    """

    low: Share = 0.1
    high: Share = 1.0
    scale: NotNegativeFloat = 0.05
    noisiest: PositiveFloat = 14.6

    def shift(self, step: Step) -> Shift:
        """Shift the conditional noise."""
        spread, signal = (1 - step.alpha) ** 0.5, step.alpha**0.5
        clean = (step.sample - spread * step.conditional) / signal
        strength = self.scale * min(1.0, self.noisiest * signal / spread)
        return Shift(conditional=-strength * (step.points - clean))
