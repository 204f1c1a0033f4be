"""Figures of many runs, as SVG. matplotlib is imported with this module:
import it where a figure is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ddoq.report.figures import INK, MAIN, SOFT, number_ticks, plain_ticks, styled, svg
from ddoq.report.groups import Group
from ddoq.report.summary import SETTING
from ddoq.report.tables import share
from ddoq.utils.io import read_json

_COLOURS = (MAIN, "#b45309", "#4f46e5", "#be185d", "#0369a1", "#4d7c0f", "#7c3aed", INK)
_MOST = 8  # settings drawn


@styled()
def accuracy_figures(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Return accuracy against images per class, with 95 % intervals:
    a title and an SVG for every setting.

    Settings with one number of images per class are left out. The full data are a line across.
    """
    blocks: dict[tuple, list[Group]] = {}
    for group in groups:
        if group["ipc"] is not None and not group["condition"]:
            blocks.setdefault(tuple(group[name] for name in SETTING), []).append(group)
    full = [group for group in groups if group["ipc"] is None]
    found = []
    for setting, arms in blocks.items():
        if len({group["ipc"] for group in arms}) > 1:
            names = ("dataset", "protocol", "student")
            beside = [one for one in full if all(one[name] == arms[0][name] for name in names)]
            found.append(
                (", ".join(str(part) for part in setting if part), _accuracy(arms, beside))
            )
    return found[:_MOST]


def _accuracy(groups: Sequence[Group], full: Sequence[Group]) -> str:
    figure = Figure(figsize=(5.2, 3.2))
    axes = figure.subplots()
    by_arm: dict[str, list[Group]] = {}
    for group in groups:
        by_arm.setdefault(group.name, []).append(group)
    for number, (name, own) in enumerate(by_arm.items()):
        own.sort(key=lambda group: group["ipc"])
        half = [0 if math.isnan(group.top1.ci95) else 100 * group.top1.ci95 for group in own]
        # Beside one another, or the intervals of all arms would be one line.
        beside = 1.015 ** (number - len(by_arm) / 2)
        x, y = [group["ipc"] * beside for group in own], [100 * group.top1.mean for group in own]
        style = {"marker": "o", "ms": 4, "lw": 1.4, "capsize": 2.5, "elinewidth": 0.9}
        axes.errorbar(x, y, half, label=name, color=_COLOURS[number % len(_COLOURS)], **style)
    for one in full:
        axes.axhline(100 * one.top1.mean, color=SOFT, ls="--", lw=1, label=one.name)
    axes.set(xscale="log", xlabel="images per class", ylabel="top-1 on test, %")
    number_ticks(axes, sorted({group["ipc"] for group in groups}))
    return _finished(figure, axes)


@styled()
def w2_figure(runs: Iterable[Path], groups: Sequence[Group]) -> str:
    """Return W2 over the standard deviation of the classes against K, both logarithmic;
    empty without two K.

    From the curves that the runs measured, where their store still has them;
    else from the codebooks of the arms.
    """
    curves = _measured(runs) or _of_arms(groups)
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    if not curves:
        return ""
    figure = Figure(figsize=(5.2, 3.2))
    axes = figure.subplots()
    for number, (name, points) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot(
            *zip(*sorted(points.items()), strict=True),
            marker="o",
            ms=4,
            lw=1.4,
            label=name,
            color=colour,
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="K, points per class",
        ylabel="W2 / standard deviation of a class",
    )
    plain_ticks(axes, sorted({num for points in curves.values() for num in points}))
    return _finished(figure, axes)


def _measured(runs: Iterable[Path]) -> dict[str, dict[int, float]]:
    """Return W2 by K of every quantizer that a run followed;
    what is missing or damaged is left out.
    """
    found: dict[str, dict[str, dict[int, float]]] = {}
    for run in runs:
        try:
            steps = [step for step in read_json(run / "plan.json") if step["stage"] == "curve"]
            for step in steps:
                manifest = read_json(
                    run.parent.parent / "store" / "curve" / step["key"] / "manifest.json"
                )
                name = f"{run.name.split('-')[0]}, {step['title']}"
                found.setdefault(name, {})[step["key"]] = _points(manifest["facts"]["points"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {
        name if number == 0 else f"{name} ({key[:6]})": points
        for name, by_key in found.items()
        for number, (key, points) in enumerate(by_key.items())
    }


def _points(rows: Iterable[dict[str, Any]]) -> dict[int, float]:
    shares = {row["num_centroids"]: share(row, "w2_squared") for row in rows}
    return {num: value**0.5 for num, value in shares.items() if value and value > 1e-9}


def _of_arms(groups: Sequence[Group]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for group in groups:
        measures = {name: group.mean(name) for name in ("w2_squared", "variance")}
        known = None not in measures.values() and group["ipc"] and not group["condition"]
        if known and (value := share(measures, "w2_squared")) and value > 1e-9:
            found.setdefault(f"{group['dataset']}, {group.name}", {})[group["ipc"]] = value**0.5
    return found


def _finished(figure: Figure, axes) -> str:
    axes.grid(color="#e2e8f0", lw=0.6)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8.5)
    return svg(figure)
