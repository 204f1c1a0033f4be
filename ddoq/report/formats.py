"""How numbers are written: in every table, on every medium, a dash for what is not known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ddoq.evaluation.statistics import Paired, Summary

DASH = "–"
#: Below it, in squared units of the latents, a variance is rounding:
#: the images of a class are all the same.
_NO_VARIANCE = 1e-12
#: What a field is where it is ``None``.
_NONE = {"ipc": "all"}


def word(name: str, value: Any) -> str:
    """Return a field as a word of a table."""
    if value in (None, ""):
        return _NONE.get(name, DASH)
    return f"{value:g}" if isinstance(value, float) else str(value)


def percent(summary: Summary | None, signed: bool = False) -> str:
    """Return ``mean ± std`` in percent; the mean alone of one value, and ``mean ± –`` of several
    that are the same: so few seeds say nothing about a spread.
    """
    if summary is None:
        return DASH
    mean = f"{100 * summary.mean:{'+' if signed else ''}.1f}"
    if math.isnan(summary.std):
        return mean
    return f"{mean} ± {100 * summary.std:.1f}" if summary.varies else f"{mean} ± {DASH}"


def interval(summary: Summary, low: float = 0.0) -> str:
    """Return the 95 % interval of the mean in percent, within ``low`` and 100,
    or a dash for values without a spread.
    """
    if not summary.varies:
        return DASH
    bottom, top = summary.interval(low, 1)
    return f"[{100 * bottom:.1f}, {100 * top:.1f}]"


def score(summary: Summary | None) -> str:
    """Return ``mean ± std`` of a score in [0, 1], or a dash."""
    if summary is None:
        return DASH
    std = f" ± {summary.std:.3f}" if not math.isnan(summary.std) else ""
    return f"{summary.mean:.3f}{std}"


def p_value(paired: Paired) -> str:
    """Return a p value with two digits, or a dash where the differences have no spread:
    the t test then says nothing, or that everything is certain.
    """
    if not paired.difference.varies:
        return DASH
    return "< 0.001" if paired.p_value < 0.001 else f"{paired.p_value:.2g}"


def decimal(value: float | None) -> str:
    """Return a number with a sign, or a dash for what is not known or not finite."""
    return DASH if value is None or not math.isfinite(value) else f"{value:+.2f}"


def number(value: float | None, digits: int, scale: float = 1) -> str:
    """Return a number times ``scale`` with so many digits behind the point, or a dash."""
    return DASH if value is None else f"{scale * value:z,.{digits}f}"


def num_bytes(size: float | None) -> str:
    """Return a size with its unit, or a dash."""
    if size is None:
        return DASH
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def share(measures: Mapping[str, Any], measure: str) -> float | None:
    """Return a squared distance as a share of the class variance;
    ``None`` where either is not known.
    """
    distance, variance = measures.get(measure), measures.get("variance")
    if distance is None or variance is None or variance <= _NO_VARIANCE:
        return None
    return distance / variance


def relative(measures: Mapping[str, Any], measure: str) -> str:
    """Return a squared distance as a share of the class variance, or a dash."""
    return number(share(measures, measure), 3)


def saved(measures: Mapping[str, Any]) -> str:
    """Return by how many percent the points' own masses lower W2² against
    equal masses, or a dash.
    """
    own, equal = share(measures, "w2_squared"), share(measures, "w2_squared_uniform")
    # As many points as latents: both are nothing but rounding.
    if own is None or equal is None or equal < 1e-9:
        return DASH
    return number(100 * (1 - own / equal), 1)


def training(group: Mapping[str, Any]) -> str:
    """Return how long students were trained."""
    steps, epochs = group.get("num_steps"), group.get("epochs")
    return f"{steps:,} steps" if epochs is None else f"{epochs:,} epochs"
