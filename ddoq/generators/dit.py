"""A class-conditional diffusion transformer, started from the noised centroid."""

from __future__ import annotations

import torch
from torch import Tensor

from ddoq.encoders.base import Encoder
from ddoq.errors import StageError
from ddoq.generators.base import ImageGenerator, Points
from ddoq.utils.pretrained import load_pretrained


class DiT(ImageGenerator):
    """``x_k = D(U_t(z_k, c))``: noise the centroid to time t, denoise it with classifier-free guidance, decode.

    Peebles & Xie 2023, through diffusers' ``DiTTransformer2DModel``.

    Args:
        path: folder with ``transformer`` and ``scheduler``, as diffusers' ``DiTPipeline`` saves them.
        encoder: decodes the result.
        strength: share of the sampling steps that are run, in (0, 1]; 1 starts from (almost) pure noise.
        guidance_scale: 1 is unguided. All latent channels are guided, as in diffusers; the DiT repository guides
            three of four, where its 4.0 is about 3.25 here.
        num_steps: of the whole schedule.
    """

    def __init__(self, path: str, encoder: Encoder, strength: float, guidance_scale: float, num_steps: int):
        from diffusers import DDIMScheduler

        self.transformer = load_pretrained(path, ("DiTTransformer2DModel",), "transformer", key="generator.path").eval()
        # clip_sample would clip latents to [-1, 1], "leading" would skip the noisiest times
        self.scheduler = DDIMScheduler.from_pretrained(
            path, subfolder="scheduler", clip_sample=False, timestep_spacing="trailing"
        )
        self.encoder, self.strength = encoder, strength
        self.guidance_scale, self.num_steps = guidance_scale, num_steps

    @torch.inference_mode()
    def generate(self, points: Points) -> Tensor:
        """Return the decoded samples.

        Raises:
            StageError: the model produced NaN or infinite values.
        """
        noise = torch.stack(
            [
                torch.randn(points.latents.shape[1:], generator=torch.Generator().manual_seed(seed))
                for seed in points.seeds
            ]
        ).to(points.latents.device)
        latents = image_to_image(
            self.transformer,
            self.scheduler,
            points.latents,
            points.labels,
            noise,
            self.strength,
            self.guidance_scale,
            self.num_steps,
        )
        if not latents.isfinite().all():
            raise StageError("generate: the DiT produced NaN or infinite latents", "check its weights (generator.path)")
        return self.encoder.decode(latents).clamp(-1, 1)


def image_to_image(
    transformer,
    scheduler,
    latents: Tensor,
    labels: Tensor,
    noise: Tensor,
    strength: float,
    guidance_scale: float,
    num_steps: int,
) -> Tensor:
    """Noise ``latents`` to ``strength`` and run the remaining part of the reverse process.

    Args:
        transformer: class-conditional noise (or v) predictor; its null class is ``num_embeds_ada_norm``.
        scheduler: a diffusers scheduler; its state is set here.
        latents: ``[B, C, H, W]``.
        labels: classes ``[B]``.
        noise: standard normal, of the latents' shape.
        strength: in (0, 1]: ``round(strength * num_steps)`` of the steps are run, at least one.
        guidance_scale: 1 needs one model call per step, anything else two (in one batch).
        num_steps: of the whole schedule.
    """
    scheduler.set_timesteps(num_steps, device=latents.device)
    first = num_steps - max(1, round(strength * num_steps))
    times = scheduler.timesteps[first * scheduler.order :]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first * scheduler.order)
    sample = scheduler.add_noise(latents, noise, times[:1].expand(len(latents)))
    channels = latents.shape[1]
    guided = guidance_scale != 1
    if guided:
        labels = torch.cat([labels, torch.full_like(labels, transformer.config.num_embeds_ada_norm)])
    for time in times:
        batch = scheduler.scale_model_input(torch.cat([sample, sample]) if guided else sample, time)
        output = transformer(batch, timestep=time.expand(len(batch)), class_labels=labels).sample
        output = output[:, :channels]  # a learned variance doubles the channels
        if guided:
            conditional, unconditional = output.chunk(2)
            output = unconditional + guidance_scale * (conditional - unconditional)
        sample = scheduler.step(output, time, sample).prev_sample
    return sample
