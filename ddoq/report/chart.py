"""Charts as SVG that follow the page: its font, its width, light or dark.

Drawn here and not by matplotlib, whose import takes longer than all the rest of a report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

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


def chart(series: Sequence[Series], x: Axis, y: Axis, size: tuple[int, int] = (600, 300)) -> Markup:
    """Return a chart with its legend as HTML.

    Args:
        series: drawn one over the other, the last on top.
        x: from left to right.
        y: from bottom to top.
        size: in pixels, at most.
    """
    width, height = size
    left = 34 + _LETTER * max(len(text) for _, text in y.ticks)

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return (
            left + x.place(point[0]) * (width - left - _RIGHT),
            height - _BOTTOM - y.place(point[1]) * (height - _TOP - _BOTTOM),
        )

    parts = [*_grid(x, y, at, size), *(_drawn(one, at) for one in series)]
    return Markup(
        f'<figure class="chart"><svg viewBox="0 0 {width} {height}" style="max-width:{width}px" '
        f'role="img">{"".join(parts)}</svg>{_legend(series)}</figure>'
    )


def _grid(x: Axis, y: Axis, at, size: tuple[int, int]) -> Iterable[str]:
    width, height = size
    bottom, right = at((x.low, y.low)), at((x.high, y.high))
    for value, text in x.ticks:
        place = at((value, y.low))[0]
        yield _segment((place, right[1]), (place, bottom[1]), 'class="grid"')
        yield _text(place, height - _BOTTOM + 16, text, "middle")
    for value, text in y.ticks:
        place = at((x.low, value))[1]
        yield _segment((bottom[0], place), (right[0], place), 'class="grid"')
        yield _text(bottom[0] - 8, place + 4, text, "end")
    yield _segment(bottom, (right[0], bottom[1]), 'class="axis"')
    yield _text((bottom[0] + right[0]) / 2, height - 8, x.label, "middle")
    if y.label:
        turn = f'transform="rotate(-90 14 {(bottom[1] + right[1]) / 2:.1f})"'
        yield _text(14, (bottom[1] + right[1]) / 2, y.label, "middle", turn)


def _drawn(series: Series, at) -> str:
    points = [at(point) for point in series.points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = f'stroke-dasharray="{series.dash}"' if series.dash else ""
    joined = f'<polyline points="{line}" {dash}/>' if series.is_line else ""
    bars = "".join(_segment(at(start), at(end)) for start, end in series.bars)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{series.size:g}" opacity="{series.opacity:g}"/>'
        for x, y in points
        if series.size
    )
    title = f"<title>{escape(series.label)}</title>" if series.label else ""
    return f'<g class="series" style="color:{series.colour}">{title}{joined}{bars}{dots}</g>'


def _segment(start: tuple[float, float], end: tuple[float, float], style: str = "") -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(text)}</text>'


def _legend(series: Sequence[Series]) -> str:
    items = "".join(
        f'<li style="color:{one.colour}"><svg viewBox="0 0 24 8" class="series">'
        f'<polyline points="0,4 24,4" stroke-dasharray="{one.dash or "none"}"/></svg>'
        f"<span>{escape(one.label)}</span></li>"
        for one in series
        if one.label
    )
    return f'<ul class="legend">{items}</ul>' if items else ""
