"""Figures as SVG, for the page, and a picture grid as PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from PIL import Image

from ddoq.report.collect import Curve, Line
from ddoq.report.tables import share

INK, MAIN, SOFT = "#1f2937", "#0f766e", "#94a3b8"
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "text.color": INK,
    "axes.labelcolor": INK,
    "svg.hashsalt": "ddoq",
    "svg.fonttype": "none",
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in ddoq's style, whatever the user's matplotlibrc says;
    that of a notebook is as before afterwards.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def svg(figure: Figure) -> str:
    """Return a figure as SVG."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


@styled()
def accuracy_figure(main: list[Line]) -> str:
    """Return the accuracy of every arm: each student a dot, the mean and its 95 % interval."""
    figure = Figure(figsize=(6.2, 0.36 * len(main) + 0.7))
    axes = figure.subplots()
    for row, line in enumerate(reversed(main)):
        colour = MAIN if line is main[-1] else INK
        axes.scatter(
            [100 * a for a in line.accuracies],
            [row] * len(line.accuracies),
            s=14,
            color=colour,
            alpha=0.35,
            lw=0,
        )
        axes.errorbar(
            100 * line.top1.mean,
            row,
            xerr=np.nan_to_num(100 * line.top1.ci95),
            fmt="o",
            ms=5,
            capsize=3,
            color=colour,
        )
    axes.set_yticks(range(len(main)), [line.label for line in reversed(main)])
    axes.set_xlabel("top-1 accuracy, %")
    axes.grid(axis="x", color="#e2e8f0", lw=0.6)
    return svg(figure)


@styled()
def losses_figure(optimisations: dict[str, dict[str, list[float]]]) -> str:
    """Return the losses along the way of every method, each over that of its first steps.

    Methods minimise different things, so only the course can be compared, not the height.
    """
    figure = Figure(figsize=(4.6, 2.6))
    axes = figure.subplots()
    colours = [MAIN, INK, SOFT, "#b45309", "#7c3aed", "#be123c"]
    for number, (arm, course) in enumerate(optimisations.items()):
        losses = np.array(course["losses"])
        colour = colours[number % len(colours)]
        axes.plot(course["steps"], losses / losses[0], color=colour, lw=1.4, label=arm)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("steps")
    axes.set_ylabel("loss over that of the first steps")
    axes.legend(frameon=False)
    return svg(figure)


@styled()
def strength_figure(strengths: list[Line], configured: float) -> str:
    """Return validation accuracy against strength; 0 is decoding without diffusion."""
    x = [float(line.label) for line in strengths]
    mean = np.array([100 * line.top1.mean for line in strengths])
    half = np.nan_to_num(np.array([100 * line.top1.ci95 for line in strengths]))
    figure = Figure(figsize=(4.6, 2.6))
    axes = figure.subplots()
    axes.fill_between(x, mean - half, mean + half, color=MAIN, alpha=0.15, lw=0)
    axes.plot(x, mean, "o-", color=MAIN, ms=4)
    axes.axvline(configured, color=SOFT, ls="--", lw=1)
    axes.annotate(
        "configured",
        (configured, 1),
        xycoords=("data", "axes fraction"),
        fontsize=8,
        color=SOFT,
        xytext=(3, -8),
        textcoords="offset points",
    )
    axes.set_xlabel("strength (0: decode, 1: from noise)")
    axes.set_ylabel("top-1 on validation, %")
    return svg(figure)


@styled()
def entropy_figure(weights: list[float], entropies: list[float]) -> str:
    """Return the entropy of the teacher's labels, over that of knowing nothing,
    against the weights.
    """
    figure = Figure(figsize=(4.6, 2.6))
    axes = figure.subplots()
    axes.scatter(weights, entropies, s=12, color=MAIN, alpha=0.5, lw=0)
    axes.set_xlabel("weight")
    axes.set_ylabel("label entropy / log of classes")
    axes.grid(color="#e2e8f0", lw=0.6)
    return svg(figure)


@styled()
def curve_figure(curves: list[Curve]) -> str:
    """Return W2, over the standard deviation of the classes, against K: both axes logarithmic.

    The last curve is the main quantizer's: with its own masses, with equal masses and held out.
    Empty where it has no point with W2 above zero.
    """
    *others, main = curves
    figure = Figure(figsize=(4.8, 3.2))
    axes = figure.subplots()
    drawn = _curve(
        axes, main, "w2_squared", f"{main.name}, own masses{_rate(main)}", color=MAIN, ls="-"
    )
    _curve(
        axes,
        main,
        "w2_squared_uniform",
        f"{main.name}, equal masses",
        color=MAIN,
        ls="--",
        alpha=0.75,
    )
    _curve(axes, main, "held_out_distortion", f"{main.name}, held out", color=MAIN, ls=":")
    for other in others:
        _curve(
            axes, other, "w2_squared", f"{other.name}, own masses{_rate(other)}", color=SOFT, ls="-"
        )
    if not drawn:
        return ""
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="K, points per class",
        ylabel="W2 / standard deviation of a class",
    )
    plain_ticks(
        axes, sorted({point["num_centroids"] for curve in curves for point in curve.points})
    )
    axes.grid(color="#e2e8f0", lw=0.6)
    axes.legend(
        loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8.5, handlelength=2.6
    )
    return svg(figure)


def _rate(curve: Curve) -> str:
    """Return the second line of a legend entry:
    the fitted power of K and the dimension it implies.
    """
    if curve.slope is None:
        return ""
    dimension = "" if curve.dimension is None else f", d ≈ {curve.dimension:.1f}"
    return f"\nW2 ∝ K^{curve.slope:.2f}{dimension}".replace("-", "−")


def _curve(axes: Axes, curve: Curve, measure: str, label: str, **style) -> bool:
    """Draw one measure of a curve where it is known and above zero;
    return whether it is anywhere.
    """
    shares = [(point["num_centroids"], share(point, measure)) for point in curve.points]
    shown = [(num, value**0.5) for num, value in shares if value is not None and value > 1e-9]
    if shown:
        axes.plot(*zip(*shown, strict=True), marker="o", ms=4, lw=1.4, label=label, **style)
    return bool(shown)


def number_ticks(axes: Axes, nums: list[int]) -> None:
    """Label a logarithmic x axis with plain numbers:
    those of ``nums``, in order, that have room.
    """
    room, ticks = np.log(nums[-1] / nums[0]) / 16, []
    for num in nums:
        if not ticks or np.log(num / ticks[-1]) > room:
            ticks.append(num)
    axes.set_xticks(ticks, [str(num) for num in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def plain_ticks(axes: Axes, nums: list[int]) -> None:
    """Label logarithmic axes with plain numbers:
    x with those of ``nums`` that have room, y with round ones.
    """
    number_ticks(axes, nums)
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(MaxNLocator(6) if high < 8 * low else LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def data_url(image: Image.Image) -> str:
    """Return a PNG as a data URL."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def thumbnail(path: Path, side: int = 64) -> Image.Image:
    """Return an image, small ones enlarged by whole pixels and large ones reduced."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    if image.width <= side:
        return image.resize((image.width * (side // image.width),) * 2, Image.Resampling.NEAREST)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def grid(paths: list[list[Path]], target: Path, gap: int = 2) -> None:
    """Write a PNG with one row of images per list."""
    tiles = [[thumbnail(path) for path in row] for row in paths]
    side = tiles[0][0].width + gap
    sheet = Image.new("RGB", (side * max(map(len, tiles)) - gap, side * len(tiles) - gap), "white")
    for y, row in enumerate(tiles):
        for x, tile in enumerate(row):
            sheet.paste(tile, (x * side, y * side))
    sheet.save(target)
