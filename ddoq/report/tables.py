"""Tables on the terminal, and the formats that all views share."""

from __future__ import annotations

import math

from rich.table import Table

from ddoq.evaluation.statistics import Summary
from ddoq.report.collect import Line


def percent(summary: Summary, signed: bool = False) -> str:
    """Return ``mean ± std`` in percent."""
    mean = f"{100 * summary.mean:{'+' if signed else ''}.1f}"
    return mean if math.isnan(summary.std) else f"{mean} ± {100 * summary.std:.1f}"


def interval(summary: Summary) -> str:
    """Return the 95 % interval of the mean in percent, or a dash for one value."""
    if math.isnan(summary.ci95):
        return "–"
    return f"[{100 * (summary.mean - summary.ci95):.1f}, {100 * (summary.mean + summary.ci95):.1f}]"


def num_bytes(size: float) -> str:
    """Return a size with its unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def relative(codebook: dict[str, float] | None, measure: str) -> str:
    """Return a squared distance as a share of the class variance."""
    return "–" if codebook is None else f"{codebook[measure] / max(codebook['variance'], 1e-12):.3f}"


def main_table(main: list[Line], title: str) -> Table:
    """Return the table of arms for the terminal."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name, justify in (
        ("arm", "left"),
        ("top-1 %", "right"),
        ("95 % interval", "right"),
        ("best epoch", "right"),
        ("seeds", "right"),
        ("images", "right"),
        ("bytes", "right"),
        ("W2² with masses", "right"),
        ("W2² uniform", "right"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)
    for line in main:
        table.add_row(
            line.label,
            percent(line.top1),
            interval(line.top1),
            percent(line.top1_best),
            str(line.top1.num),
            f"{line.num_images:,}",
            num_bytes(line.num_bytes),
            relative(line.codebook, "distortion"),
            relative(line.codebook, "w2_squared_uniform"),
            style="bold" if line is main[-1] else None,
        )
    return table
