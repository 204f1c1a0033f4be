"""Steps of the reverse process, and generators that are guided, for tests of guidances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ddoq.data.label_space import LabelSpace
from ddoq.encoders import Pixels
from ddoq.generators import DiT, Points
from ddoq.generators.sampling import Denoise, Denoiser, reverse, times_from
from ddoq.generators.steering import Steering
from ddoq.guidances import Cells, Guidance, Step

SHAPE = (4, 8, 8)
_NAMES = [str(c) for c in range(10)]
TEN = LabelSpace(_NAMES, _NAMES, [None] * 10, [None] * 10)


def random_tensors(*shape: int, seed: int = 0) -> Tensor:
    """Return normal numbers, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_points(num: int = 4, seed: int = 1) -> Points:
    """Return points of as many classes."""
    labels = torch.arange(num) % 10
    return Points(random_tensors(num, *SHAPE, seed=seed), labels, labels * 0, list(range(num)))


def some_cells(num_classes: int = 10, num_points: int = 3) -> list[Cells]:
    """Return points of every class with masses that differ."""
    masses = torch.arange(1.0, num_points + 1)
    return [
        Cells(random_tensors(num_points, *SHAPE, seed=100 + label), masses / masses.sum())
        for label in range(num_classes)
    ]


def make_step(num: int = 4, num_finished: int = 0, time: int = 700, **changes: Any) -> Step:
    """Return a step at a time of DDPM's schedule, 20 before the next."""
    alphas = DDIMScheduler().alphas_cumprod
    alpha = float(alphas[time])
    sample, noise = random_tensors(2, num, *SHAPE, seed=2)
    cells, points = some_cells(), some_points(num)
    fields = {
        "number": time // 20,
        "time": time,
        "num_times": 1000,
        "labels": points.labels,
        "seeds": points.seeds,
        "conditions": points.labels,
        "sample": sample,
        "alpha": alpha,
        "next_alpha": float(alphas[time - 20]) if time >= 20 else 1.0,
        "conditional": noise,
        "unconditional": None,
        "noise": noise,
        "clean": (sample - (1 - alpha) ** 0.5 * noise) / alpha**0.5,
        "points": points.latents,
        "cells": [cells[label] for label in points.labels.tolist()],
        "memory": random_tensors(num, num_finished, *SHAPE, seed=3),
        "decode": lambda latents: latents,
    }
    return Step(**fields | changes)


def plain(denoise: Denoise) -> Denoiser:
    """Return a model that nothing guides without classes."""
    return Denoiser(
        lambda sample, time, replace: (denoise(sample, time), None),
        lambda conditional, unconditional: conditional,
    )


def guided_reverse(
    denoise: Denoise,
    scheduler: Any,
    noise: Tensor,
    points: Tensor,
    guidances: Sequence[Guidance],
    cells: Sequence[Cells] = (),
) -> Tensor:
    """Return the end of a whole reverse process under guidances."""
    labels = torch.zeros(len(noise)).long()
    hook = Steering(
        guidances=guidances,
        scheduler=scheduler,
        points=Points(points, labels, labels, list(range(len(noise)))),
        conditions=labels,
        cells=cells,
        memory=noise.new_empty(len(noise), 0, *noise.shape[1:]),
        decode=lambda latents: latents,
    )
    times = times_from(scheduler, 50, 1.0)
    return reverse(plain(denoise), scheduler, noise, times, hook=hook)


def tiny_dit(folder: Any, *guidances: Guidance, **changes: Any) -> DiT:
    """Return a DiT of ten classes that samples from noise in ten steps."""
    options = {"strength": 1.0, "start": "noise", "guidance_scale": 2.0, "num_steps": 10}
    given = {"encoder": Pixels(), "label_space": TEN, "cells": some_cells()}
    return DiT(path=str(folder), guidances=guidances, **given | options | changes)
