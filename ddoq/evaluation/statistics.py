"""Mean, spread and interval of an accuracy over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Summary:
    """Of n values: mean, sample standard deviation, and the half-width of the 95 % interval of the mean."""

    mean: float
    std: float
    ci95: float
    num: int


def summarize(values: Sequence[float]) -> Summary:
    """Summarize values over seeds; Student's t interval. One value has no spread: its std and interval are NaN."""
    if len(values) < 2:
        return Summary(fmean(values), math.nan, math.nan, len(values))
    from scipy.special import stdtrit

    std = stdev(values)
    return Summary(
        fmean(values), std, float(stdtrit(len(values) - 1, 0.975)) * std / math.sqrt(len(values)), len(values)
    )
