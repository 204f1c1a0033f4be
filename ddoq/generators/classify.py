"""Which class a conditional diffusion model believes an image to be of."""

from __future__ import annotations

import torch
from torch import Tensor

from ddoq.generators.diffusion import LatentDiffusion
from ddoq.generators.sampling import split_output


@torch.inference_mode()
def denoising_errors(
    generator: LatentDiffusion,
    latents: Tensor,
    candidates: Tensor,
    seeds: list[int],
    batch_size: int,
) -> Tensor:
    """Return how badly the noise of latents is predicted under each of several labels, ``[n, k]``.

    The diffusion classifier of Li et al. 2023, section 3: the label with the smallest error is the
    model's answer. All labels of a latent share one noise and one time, in the middle half of the
    schedule; an error is one call of the network for one latent.

    Args:
        generator: with a variance-preserving schedule.
        latents: ``[n, C, H, W]``.
        candidates: labels ``[n, k]``.
        seeds: of each latent's noise and time.
        batch_size: of the calls.
    """
    alphas, device = generator.schedule.alphas_cumprod, generator.network.device
    errors = torch.empty(candidates.shape)
    for number, (latent, labels, seed) in enumerate(zip(latents, candidates, seeds, strict=True)):
        random = torch.Generator().manual_seed(seed)
        time = int(len(alphas) * (0.25 + 0.5 * torch.rand((), generator=random)))
        noise, alpha = torch.randn(latent.shape, generator=random), float(alphas[time])
        noisy = (alpha**0.5 * latent + (1 - alpha) ** 0.5 * noise).to(device)
        for first in range(0, len(labels), batch_size):
            part = labels[first : first + batch_size].to(device)
            sample = noisy.expand(len(part), *noisy.shape)
            output = generator.denoiser(part, 1.0)(sample, torch.tensor(time, device=device))
            predicted = split_output(output[:, : len(noise)], sample, alpha, generator.schedule)[
                1
            ].cpu()
            errors[number, first : first + batch_size] = (
                (predicted - noise).square().flatten(1).mean(1)
            )
    return errors
