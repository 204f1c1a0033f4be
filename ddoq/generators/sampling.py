"""The reverse process: where it starts, how it runs, and what pulls it towards the centroid.

Everything works on latents ``[B, C, H, W]`` and any diffusers scheduler; what predicts is a
function, so that a transformer with classes and a U-Net with prompts share this code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

#: Maps a noisy sample (as the scheduler scales it) and a time to the model's output,
#: guidance included.
Denoise = Callable[[Tensor, Tensor], Tensor]
#: Maps (next sample, guided output, current sample, time, next time) to the next sample, moved.
Pull = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]


def times_from(
    scheduler, num_steps: int, strength: float, device: torch.device | str = "cpu"
) -> Tensor:
    """Set the scheduler's ``num_steps`` times
    and return those that ``strength`` leaves, noisiest first.

    ``round(strength * num_steps)`` of the steps are run, at least one. (diffusers rounds down,
    which loses a step where the product is not exact in floating point.)
    """
    scheduler.set_timesteps(num_steps, device=device)
    first = (num_steps - max(1, round(strength * num_steps))) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return scheduler.timesteps[first:]


def reverse(
    denoise: Denoise,
    scheduler,
    sample: Tensor,
    times: Tensor,
    generators: list[torch.Generator] | None = None,
    pull: Pull | None = None,
) -> Tensor:
    """Run the reverse process from ``sample`` at ``times[0]`` to the end.

    Args:
        denoise: the model.
        scheduler: as ``times_from`` left it.
        sample: ``[B, C, H, W]``.
        times: from ``times_from``.
        generators: one per image, for schedulers that draw noise;
            an image's noise then does not depend on its batch.
        pull: see ``towards``.
    """
    draws = (
        {"generator": generators}
        if "generator" in inspect.signature(scheduler.step).parameters
        else {}
    )
    following = [int(time) for time in times[1:]] + [-1]
    for time, after in zip(times, following, strict=True):
        output = denoise(scheduler.scale_model_input(sample, time), time)
        moved = scheduler.step(output, time, sample, **draws).prev_sample
        if pull is not None:
            moved = pull(moved, output[:, : sample.shape[1]], sample, time, after)
        sample = moved
    return sample


def invert(denoise: Denoise, scheduler, latents: Tensor, times: Iterable[Tensor]) -> Tensor:
    """Return the noisy samples at the first of ``times``
    from which deterministic DDIM leads back to ``latents``.

    Song et al. 2021 (DDIM), the probability flow run upwards, step by step over the same
    times; each step takes the prediction at its end time and start sample. D3HR found it
    better than fresh noise.

    Args:
        denoise: the model, without guidance.
        scheduler: a variance-preserving one, of a model that predicts noise or v.
        latents: clean, ``[B, C, H, W]``.
        times: noisiest first.
    """
    sample = latents
    below = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    for time in reversed(list(times)):
        alpha = float(scheduler.alphas_cumprod[int(time)])
        clean, noise = split_output(
            denoise(sample, time)[:, : sample.shape[1]], sample, below, scheduler
        )
        sample = alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise
        below = alpha
    return sample


def towards(modes: Tensor, scheduler, scale: float, stop: float) -> Pull:
    """Return mode guidance: every step is moved by
    ``scale * sigma_t * (mode - predicted clean sample)``.

    MGD3 (Chan-Santiago et al. 2025) with the centroids as modes; ``sigma_t`` is the standard
    deviation of DDPM's posterior between two times of the schedule.

    Args:
        modes: ``[B, C, H, W]``.
        scheduler: a variance-preserving one.
        scale: strength of the pull; MGD3 uses 0.1.
        stop: guided while the time is above this share of the schedule; MGD3 uses 0.5.
    """
    alphas = scheduler.alphas_cumprod

    def pull(moved: Tensor, output: Tensor, sample: Tensor, time: Tensor, after: int) -> Tensor:
        if int(time) <= stop * len(alphas) or after < 0:
            return moved
        alpha, next_alpha = float(alphas[int(time)]), float(alphas[after])
        sigma = ((1 - next_alpha) / (1 - alpha) * (1 - alpha / next_alpha)) ** 0.5
        clean, _ = split_output(output, sample, alpha, scheduler)
        return moved + scale * sigma * (modes - clean)

    return pull


def split_output(output: Tensor, sample: Tensor, alpha: float, scheduler) -> tuple[Tensor, Tensor]:
    """Return the clean sample and the noise that a model's output stands for,
    at signal power ``alpha``.
    """
    signal, spread = alpha**0.5, (1 - alpha) ** 0.5
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return (sample - spread * output) / signal, output
    if kind == "v_prediction":
        return signal * sample - spread * output, spread * sample + signal * output
    return output, (sample - signal * output) / spread
