"""The reverse process: where it starts, how it runs, and where guidances take hold of it.

Everything works on latents ``[B, C, H, W]`` and any diffusers scheduler; what predicts is a
function, so that a transformer with classes and a U-Net with prompts share this code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ddoq.guidances.base import Embedding

#: Maps a noisy sample (as the scheduler scales it) and a time to the model's output,
#: guidance included.
Denoise = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Denoiser:
    """The model as a function of sample and time alone; called, it is a ``Denoise``.

    Attributes:
        halves: maps sample, time and what replaces the embedded class, if anything does, to the
            output with the class and the one without, ``None`` where nothing guides.
        guide: classifier-free guidance, which makes one output of the two.
    """

    halves: Callable[[Tensor, Tensor, Embedding | None], tuple[Tensor, Tensor | None]]
    guide: Callable[[Tensor, Tensor | None], Tensor]

    def __call__(self, sample: Tensor, time: Tensor) -> Tensor:
        return self.guide(*self.halves(sample, time, None))


#: Takes the model's place: maps (model, sample, time, next time, steps that are left) to the output
#: and to what is added to the next sample. See ``ddoq.generators.steering``.
Hook = Callable[[Denoise, Tensor, Tensor, int, int], tuple[Tensor, Tensor | None]]


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
    hook: Hook | None = None,
) -> Tensor:
    """Run the reverse process from ``sample`` at ``times[0]`` to the end.

    Args:
        denoise: the model.
        scheduler: as ``times_from`` left it.
        sample: ``[B, C, H, W]``.
        times: from ``times_from``.
        generators: one per image, for schedulers that draw noise;
            an image's noise then does not depend on its batch.
        hook: what guidances do at every step.
    """
    draws = (
        {"generator": generators}
        if "generator" in inspect.signature(scheduler.step).parameters
        else {}
    )
    following = [int(time) for time in times[1:]] + [-1]
    for number, (time, after) in enumerate(zip(times, following, strict=True), 1):
        move = None
        if hook is None:
            output = denoise(scheduler.scale_model_input(sample, time), time)
        else:
            output, move = hook(denoise, sample, time, after, len(times) - number)
        sample = scheduler.step(output, time, sample, **draws).prev_sample
        if move is not None:
            sample = sample + move
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


def to_output(noise: Tensor, alpha: float, scheduler) -> Tensor:
    """Return by how much a model's output changes where the noise that it stands for does, the
    sample being what it is: the slope of ``split_output``'s inverse.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return noise / alpha**0.5
    return -(((1 - alpha) / alpha) ** 0.5) * noise
