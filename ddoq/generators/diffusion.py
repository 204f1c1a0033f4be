"""What all latent diffusion generators share:
from a noised centroid through the reverse process to pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ddoq.data.label_space import LabelSpace
from ddoq.encoders.base import Encoder
from ddoq.errors import ConfigError
from ddoq.generators.base import ImageGenerator, Points, decoded
from ddoq.generators.sampling import Denoise, invert, reverse, times_from, towards
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
    """

    path: Decided[str]
    encoder: Given[Encoder]
    label_space: Given[LabelSpace]
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
        preserving = float(self.schedule.init_noise_sigma) == 1 and hasattr(
            self.schedule, "alphas_cumprod"
        )
        inverts = self.start in ("inversion", "statistics")
        if not preserving and (inverts or self.mode_guidance):
            raise ConfigError(
                f"generator.scheduler: {type(self.schedule).__name__} scales its samples, which "
                "inversions (generator.start) and generator.mode_guidance do not support",
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

    def networks(self) -> nn.Module:
        """See ``ImageGenerator.networks``."""
        return nn.ModuleList([self.encoder, self.network])

    def denoiser(self, labels: Tensor, guidance_scale: float) -> Denoise:
        """Return the model as a function of sample and time alone."""
        guided = guidance_scale != 1
        conditions = self.conditions(labels)
        if guided:
            conditions = torch.cat([conditions, self.unconditional(len(labels))])
        dtype = getattr(torch, self.precision)

        def denoise(sample: Tensor, time: Tensor) -> Tensor:
            batch = torch.cat([sample, sample]) if guided else sample
            output = self.predict(batch.to(dtype), time.expand(len(batch)), conditions).float()
            output = self._without_variance(output, sample.shape[1])
            return self.guide(*output.chunk(2), guidance_scale) if guided else output

        return denoise

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

    @torch.inference_mode()
    def inverted(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return the noisy samples ``[B, C, H, W]``, float32, from which deterministic DDIM leads
        back to ``latents``, at the time at which sampling starts.
        """
        times = times_from(self.schedule, self.num_steps, self.strength, latents.device)
        denoise = self.denoiser(labels, self.inversion_scale)
        return invert(denoise, self.schedule, latents.float(), times)

    @torch.inference_mode()
    def sample(self, points: Points) -> Tensor:
        """Return the denoised latents ``[B, C, H, W]``, float32.

        Raises:
            StageError: the model produced NaN or infinite values.
        """
        device, latents = points.latents.device, points.latents.float()
        generators = [torch.Generator().manual_seed(seed) for seed in points.seeds]
        noise = torch.stack([torch.randn(latents.shape[1:], generator=g) for g in generators]).to(
            device
        )
        denoise = self.denoiser(points.labels, self.guidance_scale)
        times = times_from(self.schedule, self.num_steps, self.strength, device)
        if self.start == "noise":
            sample = noise * self.schedule.init_noise_sigma
        elif self.start == "inversion":
            sample = self.inverted(latents, points.labels)
        elif self.start == "statistics":
            sample = latents  # the draws, see ``ddoq.stages.generate``
        else:
            sample = self.schedule.add_noise(latents, noise, times[:1].expand(len(latents)))
        pull = (
            towards(latents, self.schedule, self.mode_guidance, self.mode_stop)
            if self.mode_guidance
            else None
        )
        sample = reverse(denoise, self.schedule, sample, times, generators, pull)
        name, precise = type(self.network).__name__, self.precision == "float32"
        remedy = "lower generator.guidance_scale, or replace its weights in generator.path"
        remedy = remedy if precise else "set generator.precision=float32"
        return Handover("generate", f"latents of the {name}", remedy).finite(sample)

    @torch.inference_mode()
    def generate(self, points: Points) -> Tensor:
        """Return the decoded samples."""
        return decoded(self.encoder, self.sample(points))
