"""Figures as SVG, for the page, and a picture grid as PNG."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from ddoq.report.collect import Line

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_INK, _MAIN, _SOFT = "#1f2937", "#0f766e", "#94a3b8"
plt.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": _SOFT,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "svg.hashsalt": "ddoq",
        "svg.fonttype": "none",
    }
)


def _svg(figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def accuracy_figure(main: list[Line]) -> str:
    """Return the accuracy of every arm: each student a dot, the mean and its 95 % interval."""
    figure, axes = plt.subplots(figsize=(6.2, 0.36 * len(main) + 0.7))
    for row, line in enumerate(reversed(main)):
        colour = _MAIN if line is main[-1] else _INK
        axes.scatter(
            [100 * a for a in line.accuracies], [row] * len(line.accuracies), s=14, color=colour, alpha=0.35, lw=0
        )
        axes.errorbar(
            100 * line.top1.mean, row, xerr=np.nan_to_num(100 * line.top1.ci95), fmt="o", ms=5, capsize=3, color=colour
        )
    axes.set_yticks(range(len(main)), [line.label for line in reversed(main)])
    axes.set_xlabel("top-1 accuracy on test, %")
    axes.grid(axis="x", color="#e2e8f0", lw=0.6)
    return _svg(figure)


def strength_figure(strengths: list[Line], configured: float) -> str:
    """Return validation accuracy against strength; 0 is decoding without diffusion."""
    x = [float(line.label) for line in strengths]
    mean = np.array([100 * line.top1.mean for line in strengths])
    half = np.nan_to_num(np.array([100 * line.top1.ci95 for line in strengths]))
    figure, axes = plt.subplots(figsize=(4.6, 2.6))
    axes.fill_between(x, mean - half, mean + half, color=_MAIN, alpha=0.15, lw=0)
    axes.plot(x, mean, "o-", color=_MAIN, ms=4)
    axes.axvline(configured, color=_SOFT, ls="--", lw=1)
    axes.annotate(
        "configured",
        (configured, 1),
        xycoords=("data", "axes fraction"),
        fontsize=8,
        color=_SOFT,
        xytext=(3, -8),
        textcoords="offset points",
    )
    axes.set_xlabel("strength (0: decode, 1: from noise)")
    axes.set_ylabel("top-1 on validation, %")
    return _svg(figure)


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
