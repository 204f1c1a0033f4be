"""As hard as the training images."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from ddoq.options import PositiveInt
from ddoq.selections.base import ByClass, Outputs

#: Quantiles of the training images' difficulties at which bins may begin, and end.
_LOW, _HIGH = (0.0, 0.05, 0.1, 0.2), (0.8, 0.9, 0.95, 1.0)
_UNSEEN = 1e-6  # share of an empty bin
_LEAST = -700.0  # difficulty: where there is one class only, it would be minus infinity


@dataclass(kw_only=True)
class Difficulty(ByClass):
    """DiffGuideSamp (ICCV-W 2025): candidates whose histogram of difficulty for the teacher is that
    of the class's training images.

    Difficulty is ``log(1 - p(class))``. Bins are of equal width between two quantiles of the
    training images, what lies outside belongs to the outermost; of some pairs of quantiles, those
    are taken at which the candidates' histogram is nearest to the training images' in
    Kullback-Leibler divergence. (The source transforms 1 - p by a logarithm with thresholds that
    minimise a divergence; which ones it tries is ours.) Each bin gets its share of the images, and
    candidates are assigned to them so that they miss their bins by as little as possible. Any
    candidates of a class may be kept, so that masses are counted anew.

    Args:
        num_bins: bins of the histogram.
    """

    num_bins: PositiveInt = 10

    def _kept(
        self, mine: Outputs, real: Outputs, label: int, num: int, generator: Generator
    ) -> Tensor:
        wanted, there = self._bins(_difficulty(real, label), _difficulty(mine, label))
        slots = shares(wanted.bincount(minlength=self.num_bins), num)
        cost = (slots[:, None] - there).abs()
        return torch.from_numpy(linear_sum_assignment(cost.numpy())[1])

    def _bins(self, real: Tensor, mine: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bins of difficulties of training images ``[R]`` and candidates ``[n]``."""
        tried = []
        for low, high in product(
            real.quantile(real.new_tensor(_LOW)), real.quantile(real.new_tensor(_HIGH))
        ):
            edges = torch.linspace(low, high, self.num_bins + 1, dtype=real.dtype)[1:-1]
            binned = torch.bucketize(real, edges), torch.bucketize(mine, edges)
            p, q = (_histogram(bins, self.num_bins) for bins in binned)
            tried.append(((p * (p / q).log()).sum().item(), binned))
        return min(tried, key=lambda one: one[0])[1]


def shares(counts: Tensor, num: int) -> Tensor:
    """Return ``num`` bins ``[num]`` in proportion to their counts, by largest remainders."""
    exact = counts.double() * num / counts.sum()
    whole = exact.floor()
    rest = (exact - whole).argsort(descending=True, stable=True)[: num - int(whole.sum())]
    whole[rest] += 1
    return torch.arange(len(counts)).repeat_interleave(whole.long())


def _difficulty(outputs: Outputs, label: int) -> Tensor:
    """Return ``log(1 - p(class))``, exact where p is nearly 1."""
    others = torch.arange(outputs.logits.shape[1]) != label
    logits = outputs.logits.double()
    return (logits[:, others].logsumexp(1) - logits.logsumexp(1)).clamp_min(_LEAST)


def _histogram(bins: Tensor, num_bins: int) -> Tensor:
    counts = bins.bincount(minlength=num_bins) + _UNSEEN * len(bins)
    return counts / counts.sum()
