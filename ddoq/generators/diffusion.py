"""What all latent diffusion generators share:
from a noised centroid through the reverse process to pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ddoq.data.label_space import LabelSpace
from ddoq.encoders.base import Encoder
from ddoq.errors import ConfigError
from ddoq.generators.base import ImageGenerator, Points, decoded
from ddoq.generators.sampling import Denoiser, invert, reverse, times_from
from ddoq.generators.steering import Steering
from ddoq.guidances import MGD3, Cells, Finished, Guidance
from ddoq.guidances.base import Embedding
from ddoq.options import (
    Decided,
    Given,
    NotNegativeFloat,
    PositiveInt,
    PositiveShare,
    Precision,
    Share,
)
from ddoq.utils.handover import Handover
from ddoq.utils.pretrained import load_scheduler, read_scheduler
from ddoq.utils.schedulers import Scheduler


@dataclass(kw_only=True)
class LatentDiffusion(ImageGenerator):
    """``x_k = D(U_t(z_k, c))``: noise the centroid to time t,
    denoise it with classifier-free guidance, decode.

    Args:
        path: folder of the model, as diffusers' pipelines save it, or a hub id.
        encoder: decodes the result.
        label_space: what the classes are.
        strength: share of the sampling steps that are run.
        guidance_scale: 1 is unguided, and takes one model call per step instead of
            two (in one batch).
        num_steps: of the whole schedule.
        scheduler: class name of a diffusers scheduler;
            ``None`` for the one saved with the model, as saved.
        start: ``noised`` centroid; pure ``noise``, which forgets the centroid (strength 1 does not
            quite: published schedules keep half a percent of it); ``inversion`` of the centroid
            by DDIM instead of fresh noise; or a draw from the ``statistics`` of the class's
            inverted latents (D3HR), which forgets the centroid, too.
        inversion_scale: guidance scale of inversions; 1 is unguided. D3HR's released code inverts
            with its 4.
        num_sets: candidate sets of draws from ``statistics``, of which the one that is most like
            them is taken.
        mode_guidance: how strongly each step is pulled towards the centroid (MGD3: 0.1);
            0 for not at all.
        mode_stop: the pull ends at this share of the schedule's time.
        precision: of the networks: ``float32``, ``bfloat16`` or ``float16``; the sample itself is
            kept in float32.
        guidances: that steer it, beside ``mode_guidance``.
        cells: what each class was quantized to, by label, where a guidance wants to know.
    """

    path: Decided[str]
    encoder: Given[Encoder]
    label_space: Given[LabelSpace]
    guidances: Given[Sequence[Guidance]] = ()
    cells: Given[Sequence[Cells]] = ()
    strength: PositiveShare = 0.5
    guidance_scale: float = 1.5
    num_steps: PositiveInt = 50
    scheduler: Scheduler | None = None
    start: Literal["noised", "noise", "inversion", "statistics"] = "noised"
    inversion_scale: float = 1.0
    num_sets: PositiveInt = 1000
    mode_guidance: NotNegativeFloat = 0.0
    mode_stop: Share = 0.5
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        self.network = self._load()
        self.schedule = load_scheduler(self._saved_schedule(), self.scheduler, key="generator.path")
        if self.mode_guidance:
            pull = MGD3(scale=self.mode_guidance, stop=self.mode_stop)
            self.guidances = (pull, *self.guidances)
        preserving = float(self.schedule.init_noise_sigma) == 1 and hasattr(
            self.schedule, "alphas_cumprod"
        )
        inverts = self.start in ("inversion", "statistics")
        if not preserving and (inverts or self.guidances):
            raise ConfigError(
                f"generator.scheduler: {type(self.schedule).__name__} scales its samples, which "
                "inversions (generator.start), guidances and mode_guidance do not support",
                "use DDIMScheduler, DDPMScheduler, PNDMScheduler or DPMSolverMultistepScheduler",
            )
        if inverts and self.schedule.config.prediction_type == "sample":
            raise ConfigError(
                f"generator.start: {self.start} needs a model that predicts noise or v, "
                "this one predicts the sample",
                "use generator.start=noised",
            )

    @abstractmethod
    def _load(self) -> nn.Module:
        """Return the network that denoises."""

    def _saved_schedule(self) -> Mapping[str, Any]:
        """Return what the model's ``scheduler_config.json`` says."""
        return read_scheduler(self.path, "generator.path")

    @abstractmethod
    def conditions(self, labels: Tensor) -> Tensor:
        """Return what the network is conditioned on, one row per label."""

    @abstractmethod
    def unconditional(self, num: int) -> Tensor:
        """Return ``num`` rows of the condition that guidance moves away from."""

    @abstractmethod
    def predict(self, sample: Tensor, time: Tensor, conditions: Tensor) -> Tensor:
        """Return the network's raw output for a batch, ``[B, C or 2C, H, W]``."""

    def embedding(self, replace: Embedding) -> AbstractContextManager[None]:
        """Return a context in which the network's embedded classes are replaced.

        Raises:
            ConfigError: it has none.
        """
        raise ConfigError(
            f"guidance: it replaces embedded classes, and a {type(self).__name__} has none",
            "set guidance.semantic=false, or take generator=dit",
        )

    def networks(self) -> nn.Module:
        """See ``ImageGenerator.networks``."""
        steering = [guidance.networks() for guidance in self.guidances]
        return nn.ModuleList([self.encoder, self.network, *steering])

    def denoiser(self, labels: Tensor, guidance_scale: float) -> Denoiser:
        """Return the model as a function of sample and time alone."""
        guided = guidance_scale != 1
        conditions = self.conditions(labels)
        if guided:
            conditions = torch.cat([conditions, self.unconditional(len(labels))])
        dtype = getattr(torch, self.precision)

        def halves(
            sample: Tensor, time: Tensor, replace: Embedding | None = None
        ) -> tuple[Tensor, Tensor | None]:
            batch = torch.cat([sample, sample]) if guided else sample
            with self.embedding(replace) if replace else nullcontext():
                output = self.predict(batch.to(dtype), time.expand(len(batch)), conditions)
            output = self._without_variance(output.float(), sample.shape[1])
            return tuple(output.chunk(2)) if guided else (output, None)

        def guide(conditional: Tensor, unconditional: Tensor | None) -> Tensor:
            if unconditional is None:
                return conditional
            return self.guide(conditional, unconditional, guidance_scale)

        return Denoiser(halves, guide)

    def _without_variance(self, output: Tensor, channels: int) -> Tensor:
        """Drop the second half of the channels, a learned variance,
        where the scheduler has no use for it.
        """
        learned = self.schedule.config.get("variance_type") in ("learned", "learned_range")
        return output if learned else output[:, :channels]

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance, ``u + scale * (c - u)``;
        a learned variance stays the conditional one.
        """
        channels = self.network.config.in_channels
        guided = unconditional + scale * (conditional - unconditional)
        return torch.cat([guided[:, :channels], conditional[:, channels:]], 1)

    @torch.no_grad()
    def inverted(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return the noisy samples ``[B, C, H, W]``, float32, from which deterministic DDIM leads
        back to ``latents``, at the time at which sampling starts.
        """
        times = times_from(self.schedule, self.num_steps, self.strength, latents.device)
        denoise = self.denoiser(labels, self.inversion_scale)
        return invert(denoise, self.schedule, latents.float(), times)

    def sample(self, points: Points, finished: Finished | None = None) -> Tensor:
        """Return the denoised latents ``[B, C, H, W]``, float32.

        Args:
            points: of the images; at most one of each class, where a guidance remembers.
            finished: what has been made of the classes so far; these are added to it.

        Raises:
            StageError: the model produced NaN or infinite values.
        """
        with _computing(any(guidance.uses_gradient for guidance in self.guidances)):
            return self._sample(points, finished or Finished())

    def _sample(self, points: Points, finished: Finished) -> Tensor:
        # Whoever called may have made these in inference mode, and nothing could differentiate them
        latents, labels = points.latents.float().clone(), points.labels.clone()
        points = Points(latents, labels, points.sources, points.seeds)
        generators = [torch.Generator().manual_seed(seed) for seed in points.seeds]
        noise = torch.stack([torch.randn(latents.shape[1:], generator=g) for g in generators]).to(
            latents.device
        )
        denoise = self.denoiser(labels, self.guidance_scale)
        times = times_from(self.schedule, self.num_steps, self.strength, latents.device)
        if self.start == "noise":
            sample = noise * self.schedule.init_noise_sigma
        elif self.start == "inversion":
            sample = self.inverted(latents, points.labels)
        elif self.start == "statistics":
            sample = latents  # the draws, see ``ddoq.stages.generate``
        else:
            sample = self.schedule.add_noise(latents, noise, times[:1].expand(len(latents)))
        hook = self._steering(points, finished) if self.guidances else None
        sample = reverse(denoise, self.schedule, sample, times, generators, hook)
        Handover("generate", f"latents of the {type(self.network).__name__}", self._remedy).finite(
            sample
        )
        finished.add(labels, points.seeds, sample)
        return sample

    def _steering(self, points: Points, finished: Finished) -> Steering:
        device, labels = points.latents.device, points.labels.tolist()
        cells = {
            label: Cells(*(part.to(device) for part in (own.points, own.masses)))
            for label, own in enumerate(self.cells)
            if label in labels
        }
        return Steering(
            guidances=self.guidances,
            scheduler=self.schedule,
            points=points,
            conditions=self.conditions(points.labels),
            cells=[cells[label] for label in labels] if cells else (),
            memory=finished.of(points.labels, points.seeds, points.latents),
            decode=self.encoder.decode,
        )

    @property
    def _remedy(self) -> str:
        """What to do where samples are NaN or infinite."""
        if self.precision != "float32":
            return "set generator.precision=float32"
        steered = " or what guidance is scaled by" if self.guidances else ""
        return f"lower generator.guidance_scale{steered}, or replace its weights in generator.path"

    @torch.inference_mode()
    def generate(self, points: Points, finished: Finished | None = None) -> Tensor:
        """Return the decoded samples; see ``sample``."""
        return decoded(self.encoder, self.sample(points, finished))


@contextmanager
def _computing(with_gradients: bool) -> Iterator[None]:
    """Compute in the block without gradients; ``with_gradients``: those who want some can turn
    them on, which they cannot for tensors that were made in inference mode.
    """
    with torch.inference_mode(not with_gradients), torch.no_grad():
        yield
