"""Mean, spread and interval of an accuracy over seeds, and two arms over the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

_EQUAL = 1e-12  # 0.9 - 0.8 and 0.7 - 0.6 are the same difference


@dataclass(frozen=True)
class Summary:
    """Of n values: mean, sample standard deviation,
    and the half-width of the 95 % interval of the mean.
    """

    mean: float
    std: float
    ci95: float
    num: int

    @property
    def varies(self) -> bool:
        """Whether the values differ by more than rounding; one value does not."""
        return self.std > _EQUAL

    def interval(self, low: float = -math.inf, high: float = math.inf) -> tuple[float, float]:
        """Return the ends of the 95 % interval, clipped to what is possible, ``[low, high]``;
        NaN for one value.

        Student's t knows nothing of [0, 1]: with two or three values the interval of an accuracy
        may leave it. Clipping does not change how often the interval holds the mean.
        """
        # The bound comes second: max and min keep their first argument if it is NaN.
        return max(self.mean - self.ci95, low), min(self.mean + self.ci95, high)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """What one arm has over another on the same seeds.

    Args:
        difference: of the differences, one per seed.
        effect_size: Cohen's d_z, the mean difference
            over the standard deviation of the differences.
        p_value: two-sided, of the paired t test.
        wins: seeds with a positive difference.
        ties: seeds with none.
        losses: seeds with a negative difference.
    """

    difference: Summary
    effect_size: float
    p_value: float
    wins: int
    ties: int
    losses: int

    @property
    def num(self) -> int:
        """The number of pairs."""
        return self.difference.num


def summarize(values: Sequence[float]) -> Summary:
    """Summarize values over seeds; Student's t interval.

    One value has no spread: its std and interval are NaN.
    """
    if len(values) < 2:
        return Summary(fmean(values), math.nan, math.nan, len(values))
    from scipy.special import stdtrit

    std = stdev(values) if not any(map(math.isnan, values)) else math.nan  # stdev fails on NaN
    return Summary(
        fmean(values),
        std,
        float(stdtrit(len(values) - 1, 0.975)) * std / math.sqrt(len(values)),
        len(values),
    )


def compare_paired(after: Sequence[float], before: Sequence[float]) -> Paired:
    """Compare two arms by their accuracies on the same seeds, in the same order.

    With one pair, or a NaN, effect size and p value are NaN. If all differences are equal, the p
    value is 1 and the effect size NaN where they are zero, else 0 and infinite.

    Raises:
        ValueError: the lengths differ, or there are no pairs.
    """
    differences = [a - b for a, b in zip(after, before, strict=True)]
    summary = summarize(differences)
    effect_size, p_value = _effect_and_p(summary)
    return Paired(
        difference=summary,
        effect_size=effect_size,
        p_value=p_value,
        wins=sum(difference > _EQUAL for difference in differences),
        ties=sum(abs(difference) <= _EQUAL for difference in differences),
        losses=sum(difference < -_EQUAL for difference in differences),
    )


def _effect_and_p(difference: Summary) -> tuple[float, float]:
    from scipy.special import stdtr

    if difference.num < 2:
        return math.nan, math.nan
    if difference.std <= _EQUAL:
        if abs(difference.mean) <= _EQUAL:
            return math.nan, 1.0
        return math.copysign(math.inf, difference.mean), 0.0
    effect = difference.mean / difference.std
    return effect, 2 * float(stdtr(difference.num - 1, -abs(effect) * math.sqrt(difference.num)))
