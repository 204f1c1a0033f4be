"""The figure of the study from its rows: `python tests/benchmarks/figures.py tests/assets/study.png`.

Accuracy against images per class, W2 against centroids on log-log axes (its slope is the rate), accuracy against the
strength of diffusion. Bars are Student's 95 % intervals.
"""

from __future__ import annotations

import csv
import sys

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from study import DATA, ROWS, read

from ddoq.evaluation.statistics import summarize

INK = {"fashion_mnist": "#0f766e", "cifar10": "#b45309", "imagenette_fastai": "#4f46e5"}
#: Arms of the rate, their name in the figure, and how their lines look.
ARMS = {
    "features_mass": ("cells of features, real", "-"),
    "ddoq": ("cells of latents, DiT", "--"),
    "random": ("random, real", ":"),
}


def line(axes: Axes, rows: list[dict], along: str, **style: str) -> None:
    """Draw mean accuracies with their intervals against a column."""
    rows = sorted(rows, key=lambda row: float(row[along]))
    scores = [summarize(list(row["top1"].values())) for row in rows]
    x, y = [float(row[along]) for row in rows], [score.mean for score in scores]
    axes.errorbar(x, y, [score.ci95 for score in scores], marker="o", ms=3, lw=1.2, capsize=2, elinewidth=0.8, **style)


def accuracies(axes: Axes) -> None:
    """Draw accuracy against images per class."""
    for name, title in DATA.items():
        if (file := ROWS / f"rate-{name}.csv").exists():
            for arm, (what, dashes) in ARMS.items():
                rows = [row for row in read(file) if row["arm"] == arm]
                line(axes, rows, "ipc", color=INK[name], ls=dashes, label=f"{title}: {what}")
    axes.set(xscale="log", xlabel="images per class", ylabel="top-1 on test, %")


def distances(axes: Axes) -> None:
    """Draw W2 over the standard deviation of a class against the number of centroids, of k-means in latents."""
    with (ROWS / "curves.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["space"], row["quantizer"]) == ("latents", "kmeans")]
    for name, title in DATA.items():
        own = [row for row in rows if row["data"] == name]
        x, y = [int(row["num_centroids"]) for row in own], [float(row["w2_squared"]) ** 0.5 for row in own]
        label = f"{title}: slope {float(own[0]['slope']):.3f}, dimension {float(own[0]['dimension']):.0f}"
        axes.loglog(x, y, marker="o", ms=3, lw=1.2, color=INK[name], label=label)
    axes.set(xlabel="centroids per class", ylabel="W2 / standard deviation")


def strengths(axes: Axes) -> None:
    """Draw accuracy against the strength of diffusion, with masses."""
    spaces = {"latents": ("cells of latents", "--"), "teacher": ("cells of features", "-")}
    for name, title in DATA.items():
        if (file := ROWS / f"strengths-{name}.csv").exists():
            for space, (what, dashes) in spaces.items():
                rows = [row for row in read(file) if (row["space"], row["weighting"]) == (space, "mass")]
                if rows:
                    line(axes, rows, "strength", color=INK[name], ls=dashes, label=f"{title}: {what}")
    axes.set(xlabel="strength of diffusion", ylabel="top-1 on test, %")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, draw in zip(figure.subplots(1, 3), (accuracies, distances, strengths), strict=True):
        draw(axes)
        axes.legend(fontsize=6, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(sys.argv[1], dpi=110)
