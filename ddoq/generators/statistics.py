"""Starts from the statistics of inverted latents: D3HR (Zhao et al., ICML 2025).

The latents of a class, inverted by DDIM to a noise level, are nearly Gaussian, coordinate by
coordinate. As many points as there are images are drawn from that Gaussian, in several candidate
sets; the set whose own statistics are nearest to it is denoised from that level on.

Here both ends are the same time of the schedule, that at which ``generator.strength`` starts.
D3HR's released code takes the statistics at t = 600, the 31st of 50 times, and starts to denoise at
t = 620, one step off; ``strength=0.62``, 31 of 50 steps, is t = 600 for both. It inverts with
guidance (``inversion_scale=4``). Its posterior is drawn (``encoder.posterior=sample``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ddoq.utils.seeding import item_generator

_SKEWNESS = 0.1  # weight of the skewness in D3HR's score
_NO_SPREAD = 1e-12  # deviation of a set of one draw, whose skewness is 0


class Moments:
    """Mean and standard deviation of items that come in batches, coordinate by coordinate.

    Two sums of one item's shape are held, in float64, whatever the number of items.
    """

    def __init__(self) -> None:
        self.num, self._mean, self._squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, items: Tensor) -> None:
        """Take items ``[B, *shape]``."""
        items = items.double().cpu()
        num, mean = self.num + len(items), items.mean(0)
        shift = mean - self._mean
        squares = (items - mean).square().sum(0)
        self._squares = self._squares + squares + shift.square() * (self.num * len(items) / num)
        self._mean = self._mean + shift * (len(items) / num)
        self.num = num

    @property
    def mean(self) -> Tensor:
        """The mean ``[*shape]``, float32."""
        return self._mean.float()

    @property
    def std(self) -> Tensor:
        """The standard deviation ``[*shape]``, float32, that of all there are: ``1 / num``."""
        return (self._squares / self.num).sqrt().float()


def score(draws: Tensor, mean: Tensor, std: Tensor) -> float:
    """Return how unlike a set of draws is to what it was drawn from:
    ``|mean(x) - mu| + |std(x) - sigma| + 0.1 |skewness(x)|``, with Euclidean norms over all
    coordinates and moments of the set as a whole (``1 / K``).

    Args:
        draws: x, ``[K, *shape]``.
        mean: mu, ``[*shape]``.
        std: sigma, ``[*shape]``.
    """
    own_mean, own_std = draws.mean(0), draws.std(0, correction=0)
    skewness = ((draws - own_mean) / own_std.clamp_min(_NO_SPREAD)).pow(3).mean(0)
    return sum(
        weight * part.norm().item()
        for weight, part in ((1, own_mean - mean), (1, own_std - std), (_SKEWNESS, skewness))
    )


def best_draws(mean: Tensor, std: Tensor, num: int, num_sets: int, *seed: object) -> Tensor:
    """Return the set of ``num`` draws from ``N(mean, std²)`` with the lowest score.

    No more than two sets are held. Each has its own randomness: the first of a thousand is the one
    of a single set.

    Args:
        mean: ``[*shape]``.
        std: ``[*shape]``.
        num: draws of a set.
        num_sets: candidates.
        seed: what the randomness is made of.
    """
    best, lowest = torch.empty(0), float("inf")
    for number in range(num_sets):
        noise = torch.randn(num, *mean.shape, generator=item_generator(*seed, number))
        draws = mean + std * noise
        if (own := score(draws, mean, std)) < lowest:
            best, lowest = draws, own
    return best
