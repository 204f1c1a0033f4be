"""Guidances in the reverse process: one call per step, between the network and the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

from torch import Tensor

from ddoq.generators.base import Points
from ddoq.generators.sampling import Denoiser, split_output, to_output
from ddoq.guidances.base import Cells, Embedding, Guidance, Moment, Shift, Step


@dataclass(kw_only=True)
class Steering:
    """What guidances do to one batch.

    Attributes:
        guidances: that steer it.
        scheduler: a variance-preserving one.
        points: of the images.
        conditions: of the network, one row per image.
        cells: of each image's class; may be empty.
        memory: finished latents of each image's class, ``[B, n, C, H, W]``.
        decode: maps latents to images.
        kept: see ``Moment.once``.
    """

    guidances: Sequence[Guidance]
    scheduler: Any
    points: Points
    conditions: Tensor
    cells: Sequence[Cells]
    memory: Tensor
    decode: Callable[[Tensor], Tensor]
    kept: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self, denoise: Denoiser, sample: Tensor, time: Tensor, after: int, number: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return the model's output, shifted, and what is added to the next sample.

        Args:
            denoise: the model.
            sample: ``[B, C, H, W]``.
            time: of the step.
            after: the next time; negative at the last step.
            number: steps that are left after this one.
        """
        moment = Moment(
            number=number,
            time=int(time),
            num_times=len(self.scheduler.alphas_cumprod),
            labels=self.points.labels,
            seeds=self.points.seeds,
            conditions=self.conditions,
            kept=self.kept,
        )
        acting = [guidance for guidance in self.guidances if guidance.acts(moment)]
        if not acting:
            return denoise(sample, time), None
        halves = denoise.halves(sample, time, _chained([g.embed(moment) for g in acting]))
        step = self._step(moment, denoise, halves, sample, after)
        shift = reduce(add, (guidance.shift(step) for guidance in acting))
        return self._shifted(denoise, halves, shift, step.alpha), shift.mean

    def _step(
        self,
        moment: Moment,
        denoise: Denoiser,
        halves: tuple[Tensor, Tensor | None],
        sample: Tensor,
        after: int,
    ) -> Step:
        alphas, channels = self.scheduler.alphas_cumprod, sample.shape[1]
        alpha = float(alphas[moment.time])

        def split(output: Tensor) -> tuple[Tensor, Tensor]:
            return split_output(output[:, :channels], sample, alpha, self.scheduler)

        conditional, unconditional = halves
        clean, noise = split(denoise.guide(conditional, unconditional))
        return Step(
            **vars(moment),
            sample=sample,
            alpha=alpha,
            next_alpha=float(alphas[after]) if after >= 0 else 1.0,
            conditional=split(conditional)[1],
            unconditional=None if unconditional is None else split(unconditional)[1],
            noise=noise,
            clean=clean,
            points=self.points.latents,
            cells=self.cells,
            memory=self.memory,
            decode=self.decode,
        )

    def _shifted(
        self,
        denoise: Denoiser,
        halves: tuple[Tensor, Tensor | None],
        shift: Shift,
        alpha: float,
    ) -> Tensor:
        """Return the guided output with shifts of noise and clean latents in it."""
        conditional, unconditional = halves
        if shift.conditional is not None:
            conditional = self._moved(conditional, shift.conditional, alpha)
        output = denoise.guide(conditional, unconditional)
        if shift.noise is not None:
            output = self._moved(output, shift.noise, alpha)
        if shift.clean is not None:
            # at a given sample, a clean latent that moves takes the noise with it
            output = self._moved(output, -((alpha / (1 - alpha)) ** 0.5) * shift.clean, alpha)
        return output

    def _moved(self, output: Tensor, noise: Tensor, alpha: float) -> Tensor:
        """Add noise ``[B, C, H, W]`` to an output, whose learned variance stays."""
        moved, channels = output.clone(), noise.shape[1]
        moved[:, :channels] += to_output(noise, alpha, self.scheduler)
        return moved


def _chained(embeddings: Sequence[Embedding | None]) -> Embedding | None:
    """Return all replacements of an embedding, one after another."""
    present = [embedding for embedding in embeddings if embedding is not None]
    if not present:
        return None

    def replace(embedded: Tensor, table: Tensor) -> Tensor:
        for embedding in present:
            embedded = embedding(embedded, table)
        return embedded

    return replace
