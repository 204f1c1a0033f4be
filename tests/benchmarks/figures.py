"""The figure of the study from its rows:
`python tests/benchmarks/figures.py tests/assets/study.png`.

Accuracy against images per class; W2 against centroids on log-log axes (its slope is the rate);
what the centroid adds to diffusion from noise alone, against the strength of diffusion. Bars are
Student's 95 % intervals.
"""

from __future__ import annotations

import csv
import sys

from curves import FITTED
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from study import DATA, ROWS, accuracy, read

INK = {"fashion_mnist": "#0f766e", "cifar10": "#b45309", "imagenette_fastai": "#4f46e5"}
#: Arms of the rate, and what their lines look like.
ARMS = {"features_mass": "-", "ddoq": "--", "random": ":"}
SPACES = {"teacher": "-", "latents": "--"}
LEGEND = {
    "-": "cells of features (left: real images)",
    "--": "cells of latents (left: through the DiT)",
    ":": "random real images",
}


def line(axes: Axes, rows: list[dict], along: str, less: float = 0.0, **style: str) -> None:
    """Draw mean accuracies, less a number, with their intervals against a column."""
    rows = sorted(rows, key=lambda row: float(row[along]))
    scores = [accuracy(row) for row in rows]
    x, y = [float(row[along]) for row in rows], [score.mean - less for score in scores]
    axes.errorbar(
        x,
        y,
        [score.ci95 for score in scores],
        marker="o",
        ms=3,
        lw=1.2,
        capsize=2,
        elinewidth=0.8,
        **style,
    )


def accuracies(axes: Axes) -> None:
    """Draw accuracy against images per class."""
    for name, colour in INK.items():
        if (file := ROWS / f"rate-{name}.csv").exists():
            for arm, dashes in ARMS.items():
                line(
                    axes,
                    [row for row in read(file) if row["arm"] == arm],
                    "ipc",
                    color=colour,
                    ls=dashes,
                )
    axes.set(xscale="log", xlabel="images per class", ylabel="top-1 on test, %")


def distances(axes: Axes) -> None:
    """Draw W2 over the standard deviation of a class against the number of centroids,
    of k-means in latents.
    """
    with (ROWS / "curves.csv").open(newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["space"], row["quantizer"]) == ("latents", "kmeans")
        ]
    rows = [row for row in rows if int(row["num_centroids"]) <= FITTED]
    for name, colour in INK.items():
        own = [row for row in rows if row["data"] == name]
        x = [int(row["num_centroids"]) for row in own]
        y = [float(row["w2_squared"]) ** 0.5 for row in own]
        axes.plot(x, y, marker="o", ms=3, lw=1.2, color=colour)
        axes.annotate(
            f"slope {float(own[0]['slope']):.3f}",
            (x[-1], y[-1]),
            color=colour,
            fontsize=8,
            ha="right",
            va="top",
        )
    axes.set(
        xscale="log", yscale="log", xlabel="centroids per class", ylabel="W2 / standard deviation"
    )
    axes.set_yticks(
        ticks := [0.5, 0.6, 0.7, 0.8, 0.9, 1], [f"{tick:g}" for tick in ticks], minor=False
    )
    axes.minorticks_off()


def strengths(axes: Axes) -> None:
    """Draw accuracy, less that of noise alone, against the strength of diffusion, with masses."""
    for name, colour in INK.items():
        for file in sorted(ROWS.glob(f"strengths*-{name}.csv")):
            for space, dashes in SPACES.items():
                rows = [
                    row for row in read(file) if (row["space"], row["weighting"]) == (space, "mass")
                ]
                if rows:
                    (alone,) = (row for row in rows if float(row["strength"]) == 1)
                    noise = accuracy(alone).mean
                    line(axes, rows, "strength", noise, color=colour, ls=dashes)
    axes.axhline(0, color="#94a3b8", lw=0.8)
    axes.set(xlabel="strength of diffusion", ylabel="top-1 on test, points above strength 1")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    for axes, draw in zip(figure.subplots(1, 3), (accuracies, distances, strengths), strict=True):
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
    keys = [Line2D([], [], color=INK[name], label=title) for name, title in DATA.items()]
    keys += [
        Line2D([], [], color="#475569", ls=dashes, label=what) for dashes, what in LEGEND.items()
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    figure.savefig(sys.argv[1], dpi=100)
