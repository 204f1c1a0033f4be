"""Charts as SVG that follow the page: its font, its width, light or dark.

Drawn here and not by matplotlib, whose import takes longer than all the rest of a report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ddoq.utils.pages import templates

_TOP, _RIGHT, _BOTTOM = 10, 16, 44  # pixels around the axes
_LETTER = 6.6  # pixels of a letter of the ticks, about
_STEPS = (1, 2, 5)  # of round numbers


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What a direction shows.

    Attributes:
        label: what it is, and its unit.
        low: value at its beginning.
        high: value at its end.
        ticks: values and how they are written.
        is_log: equal factors are equal distances.
    """

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return where a value is, from 0 at the low end to 1."""
        low, high, value = (
            (math.log(x) if self.is_log else x) for x in (self.low, self.high, value)
        )
        return (value - low) / (high - low)


def linear(
    label: str, values: Iterable[float], bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Axis:
    """Return an axis that holds all values with some room, and never leaves the bounds."""
    values = list(values)
    room = 0.06 * (max(values) - min(values)) or max(abs(values[0]) * 0.05, 1e-3)
    low, high = max(min(values) - room, bounds[0]), min(max(values) + room, bounds[1])
    step = _round_step((high - low) / 5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [(number * step, f"{number * step:.6g}") for number in range(first, last + 1)]
    return Axis(label=label, low=low, high=high, ticks=ticks)


def logarithmic(label: str, values: Iterable[float], at: Sequence[float] = ()) -> Axis:
    """Return a logarithmic axis with ticks at those of ``at`` that have room,
    or at round numbers.
    """
    values = list(values)
    low, high = min(values) / 1.12, max(values) * 1.12
    if not at:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        at = [step * 10.0**power for power in powers for step in _STEPS]
    room, ticks = math.log(high / low) / 16, []
    for value in at:
        if low <= value <= high and (not ticks or math.log(value / ticks[-1][0]) > room):
            ticks.append((value, f"{value:g}"))
    if len(ticks) < 2:  # within one step of round numbers
        ticks = linear(label, [low, high], (low, high)).ticks
    return Axis(label=label, low=low, high=high, ticks=ticks, is_log=True)


def named(names: Sequence[str]) -> Axis:
    """Return an axis with a name at each of 0, 1, 2 … from the top downwards."""
    ticks = list(enumerate(names))
    return Axis(label="", low=len(names) - 0.5, high=-0.5, ticks=ticks)


def _round_step(size: float) -> float:
    power = 10.0 ** math.floor(math.log10(size))
    return next(step * power for step in (*_STEPS, 10) if step * power >= size * (1 - 1e-9))


@dataclass(frozen=True, kw_only=True)
class Series:
    """What is drawn in one colour.

    Attributes:
        label: of the legend; without one it is not there.
        colour: as CSS says it.
        points: x and y; those of a line in order.
        bars: two ends each, of intervals.
        is_line: whether the points are joined.
        dash: pattern of the line in pixels.
        size: radius of the points.
        opacity: of the points.
    """

    colour: str
    points: Sequence[tuple[float, float]]
    label: str = ""
    bars: Sequence[tuple[tuple[float, float], tuple[float, float]]] = field(default_factory=list)
    is_line: bool = True
    dash: str = ""
    size: float = 3
    opacity: float = 1


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing with its legend; a page shows it as it is.

    Attributes:
        series: drawn one over the other, the last on top.
        x: from left to right.
        y: from bottom to top.
        width: in pixels, at most.
        height: in pixels.
    """

    series: Sequence[Series]
    x: Axis
    y: Axis
    width: int = 600
    height: int = 300

    def at(self, point: tuple[float, float]) -> tuple[float, float]:
        """Return where a point is, in pixels from the left and from the top."""
        left = 34 + _LETTER * max(len(text) for _, text in self.y.ticks)
        x = left + self.x.place(point[0]) * (self.width - left - _RIGHT)
        y = self.height - _BOTTOM - self.y.place(point[1]) * (self.height - _TOP - _BOTTOM)
        return round(x, 1), round(y, 1)

    def __html__(self) -> str:
        """Return it as HTML; templates ask for that."""
        return templates(Path(__file__).parent).get_template("chart.html").render(chart=self)
