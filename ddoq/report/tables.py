"""Tables on the terminal, and the formats that all views share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.table import Table

from ddoq.evaluation.statistics import Summary

if TYPE_CHECKING:
    from ddoq.report.collect import Line
    from ddoq.report.comparisons import Pivot


def percent(summary: Summary, signed: bool = False) -> str:
    """Return ``mean ± std`` in percent."""
    mean = f"{100 * summary.mean:{'+' if signed else ''}.1f}"
    return mean if math.isnan(summary.std) else f"{mean} ± {100 * summary.std:.1f}"


def interval(summary: Summary, low: float = 0.0) -> str:
    """Return the 95 % interval of the mean in percent, within ``low`` and 100,
    or a dash for one value.
    """
    if math.isnan(summary.ci95):
        return "–"
    bottom, top = summary.interval(low, 1)
    return f"[{100 * bottom:.1f}, {100 * top:.1f}]"


def score(summary: Summary | None) -> str:
    """Return ``mean ± std`` of a score in [0, 1], or a dash."""
    if summary is None:
        return "–"
    return (
        f"{summary.mean:.3f}"
        if math.isnan(summary.std)
        else f"{summary.mean:.3f} ± {summary.std:.3f}"
    )


def p_value(value: float) -> str:
    """Return a p value with two digits, or a dash."""
    return "–" if math.isnan(value) else ("< 0.001" if value < 0.001 else f"{value:.2g}")


def decimal(value: float | None, digits: int = 2) -> str:
    """Return a number with a sign, or a dash for what is not known or not finite."""
    return "–" if value is None or not math.isfinite(value) else f"{value:+.{digits}f}"


def num_bytes(size: float) -> str:
    """Return a size with its unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def number(value: float | None, digits: int) -> str:
    """Return a number with so many digits behind the point, or a dash for what is not known."""
    return "–" if value is None else f"{value:z.{digits}f}"


#: Below it, in squared units of the latents, a variance is rounding:
#: the images of a class are all the same.
_NO_VARIANCE = 1e-12


def share(measures: dict[str, float | None], measure: str) -> float | None:
    """Return a squared distance as a share of the class variance;
    ``None`` where either is not known.
    """
    known = measures[measure] is not None and measures["variance"] > _NO_VARIANCE
    return measures[measure] / measures["variance"] if known else None


def relative(measures: dict[str, float | None] | None, measure: str) -> str:
    """Return a squared distance as a share of the class variance, or a dash."""
    return "–" if measures is None else number(share(measures, measure), 3)


def saved(measures: dict[str, float | None]) -> str:
    """Return by how many percent the points' own masses lower W2² against
    equal masses, or a dash.
    """
    own, equal = share(measures, "w2_squared"), share(measures, "w2_squared_uniform")
    # As many points as latents: both are nothing but rounding.
    if own is None or equal is None or equal < 1e-9:
        return "–"
    return number(100 * (1 - own / equal), 1)


def main_table(main: list[Line], title: str) -> Table:
    """Return the table of arms for the terminal."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name, justify in (
        ("arm", "left"),
        ("top-1 %", "right"),
        ("95 % interval", "right"),
        ("best epoch", "right"),
        ("top-5 %", "right"),
        ("seeds", "right"),
        ("images", "right"),
        ("bytes", "right"),
        ("W2² own masses", "right"),
        ("W2² equal masses", "right"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)
    for line in main:
        table.add_row(
            line.label,
            percent(line.top1),
            interval(line.top1),
            percent(line.top1_best),
            "–" if line.top5 is None else f"{100 * line.top5.mean:.1f}",
            str(line.top1.num),
            f"{line.num_images:,}",
            num_bytes(line.num_bytes),
            relative(line.codebook, "w2_squared"),
            relative(line.codebook, "w2_squared_uniform"),
            style="bold" if line is main[-1] else None,
        )
    return table


def pivot_table(pivot: Pivot, title: str) -> Table:
    """Return a comparison for the terminal: arms by students, teachers or labels."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("arm", no_wrap=True)
    for name in pivot.columns:
        table.add_column(name, justify="right", no_wrap=True)
    for arm, lines in pivot.rows.items():
        last = arm == list(pivot.rows)[-1]
        table.add_row(
            arm,
            *("–" if line is None else percent(line.top1) for line in lines),
            style="bold" if last else None,
        )
    return table


def training(line: Line) -> str:
    """Return how long the students of a line were trained."""
    return f"{line.num_steps:,} steps" if line.epochs is None else f"{line.epochs:,} epochs"
