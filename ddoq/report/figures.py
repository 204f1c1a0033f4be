"""What is drawn of runs: one colour per arm, wherever it is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ddoq.evaluation.statistics import Summary
from ddoq.pipeline.keys import digest
from ddoq.report.chart import Axis, Chart, Series, linear, logarithmic, named
from ddoq.report.formats import share
from ddoq.report.groups import SETTING, Group

#: Hues in degrees of arms that often stand side by side; another one's comes from its name.
_HUES = {
    **{"ddoq": 175, "ddoq_uniform": 205, "random": 32, "d4m": 265, "nearest": 330, "dm": 0},
    **{"d4m_dit": 285, "decode": 95, "decode_mass": 130, "herding": 52, "kcenter": 15},
}
_SOFT = "var(--soft)"
_MOST = 8  # settings drawn
_SMALL = {"width": 460, "height": 260}


def colour(arm: str) -> str:
    """Return the CSS colour of an arm: the same on every page. The full data have none."""
    if arm == "full":
        return _SOFT
    hue = _HUES.get(arm, int(digest(arm)[:8], 16) % 360)
    return f"hsl({hue} 70% var(--lightness))"


def _bar(summary: Summary) -> tuple[float, float]:
    """Return the ends of a 95 % interval in percent; both are the mean where there is none."""
    if not summary.varies:
        return 100 * summary.mean, 100 * summary.mean
    low, high = summary.interval(0, 1)
    return 100 * low, 100 * high


def _percents(label: str, summaries: Sequence[Summary], more: Sequence[float] = ()) -> Axis:
    ends = [end for summary in summaries for end in _bar(summary)]
    return linear(label, [*ends, *more], bounds=(0, 100))


def accuracy_figure(groups: Sequence[Group], split: str) -> Chart:
    """Return the accuracy of every arm: each student a dot, the mean and its 95 % interval."""
    series, students = [], [100 * row["top1"] for group in groups for row in group["rows"]]
    for place, group in enumerate(groups):
        low, high = _bar(group["accuracy"])
        seeds = [(100 * row["top1"], place) for row in group["rows"]]
        look = {"colour": colour(group["arm"]), "is_line": False}
        series.append(Series(points=seeds, opacity=0.35, **look))
        mean = (100 * group["accuracy"].mean, place)
        series.append(Series(points=[mean], size=4.5, bars=[((low, place), (high, place))], **look))
    return Chart(
        series=series,
        x=_percents(f"top-1 on {split}, %", [group["accuracy"] for group in groups], students),
        y=named([group["name"] for group in groups]),
        width=640,
        height=60 + 26 * len(groups),
    )


def accuracy_curves(groups: Sequence[Group]) -> list[tuple[str, Chart]]:
    """Return accuracy against images per class, with 95 % intervals:
    a title and a chart for every setting.

    Settings with one number of images per class are left out. The full data are a line across.
    """
    settings: dict[tuple, list[Group]] = {}
    for group in groups:
        if group["ipc"] is not None and not group["condition"]:
            settings.setdefault(tuple(group[name] for name in SETTING), []).append(group)
    names = ("dataset", "protocol", "student")
    return [
        (
            ", ".join(str(part) for part in setting if part),
            _curves(own, [g for g in groups if _is_beside(g, own[0], names)]),
        )
        for setting, own in settings.items()
        if len({group["ipc"] for group in own}) > 1
    ][:_MOST]


def _is_beside(full: Group, group: Group, names: Sequence[str]) -> bool:
    return full["ipc"] is None and all(full[name] == group[name] for name in names)


def _curves(groups: Sequence[Group], full: Sequence[Group]) -> Chart:
    arms: dict[str, list[Group]] = {}
    for group in groups:
        arms.setdefault(group["name"], []).append(group)
    x = logarithmic("images per class", ipcs := sorted({group["ipc"] for group in groups}), at=ipcs)
    series = []
    for number, (name, own) in enumerate(arms.items()):
        own.sort(key=lambda group: group["ipc"])
        # Beside one another, or the intervals of all arms would be one line.
        places = [group["ipc"] * 1.012 ** (number - len(arms) / 2) for group in own]
        means = [100 * group["accuracy"].mean for group in own]
        ends = [_bar(group["accuracy"]) for group in own]
        bars = [((at, low), (at, high)) for at, (low, high) in zip(places, ends, strict=True)]
        points = list(zip(places, means, strict=True))
        series.append(Series(label=name, colour=colour(own[0]["arm"]), points=points, bars=bars))
    for group in full:
        mean = 100 * group["accuracy"].mean
        ends = [(x.low, mean), (x.high, mean)]
        series.append(Series(label=group["name"], colour=_SOFT, points=ends, dash="5 4", size=0))
    y = _percents("top-1 on test, %", [group["accuracy"] for group in (*groups, *full)])
    return Chart(series=series, x=x, y=y)


def strength_figure(groups: Sequence[Group], configured: float) -> Chart:
    """Return validation accuracy against strength; 0 is decoding without diffusion."""
    groups = sorted(groups, key=lambda group: group["strength"])
    y = _percents("top-1 on validation, %", [group["accuracy"] for group in groups])
    points = [(group["strength"], 100 * group["accuracy"].mean) for group in groups]
    bars = [tuple((group["strength"], end) for end in _bar(group["accuracy"])) for group in groups]
    at = [(configured, y.low), (configured, y.high)]
    return Chart(
        series=[
            Series(label="configured", colour=_SOFT, points=at, dash="5 4", size=0),
            Series(colour=colour(groups[0]["arm"]), points=points, bars=bars),
        ],
        x=linear("strength (0: decode, 1: from noise)", [0, 1], bounds=(0, 1)),
        y=y,
        **_SMALL,
    )


def losses_figure(optimisations: Mapping[str, Mapping[str, Any]]) -> Chart:
    """Return the losses along the way of every method, each over that of its first steps.

    Methods minimise different things, so only the course can be compared, not the height.
    """
    courses = {
        arm: [loss / course["losses"][0] for loss in course["losses"]]
        for arm, course in optimisations.items()
    }
    series = [
        Series(
            label=arm,
            colour=colour(arm),
            points=list(zip(optimisations[arm]["loss_steps"], course, strict=True)),
            size=0,
        )
        for arm, course in courses.items()
    ]
    steps = [step for course in optimisations.values() for step in course["loss_steps"]]
    losses = [0, *(loss for course in courses.values() for loss in course)]
    x, y = linear("steps", steps), linear("loss over that of the first steps", losses)
    return Chart(series=series, x=x, y=y, **_SMALL)


def entropy_figure(arm: str, weights: Sequence[float], entropies: Sequence[float]) -> Chart:
    """Return the entropy of the teacher's labels, over that of knowing nothing,
    against the weights.
    """
    points = list(zip(weights, entropies, strict=True))
    return Chart(
        series=[Series(colour=colour(arm), points=points, is_line=False, opacity=0.5)],
        x=linear("weight", weights),
        y=linear("label entropy / log of classes", entropies, bounds=(0, 1)),
        **_SMALL,
    )


# --- W2 against K -----------------------------------------------------------------------------

#: The measures of a codebook that are drawn, with their words and dashes.
_MEASURES = {
    "w2_squared": ("own masses", ""),
    "w2_squared_uniform": ("equal masses", "7 4"),
    "held_out_distortion": ("held out", "2 3"),
}


def curve_series(
    curve: Mapping[str, Any], measures: Sequence[str] = tuple(_MEASURES)
) -> list[Series]:
    """Return W2 against K of one quantizer, over the standard deviation of the classes.

    Args:
        curve: its ``name`` and ``arm``, ``points`` with the measures at every K, and the fitted
            ``slope`` and ``dimension`` where they are known.
        measures: that are drawn. Where one is not known or has no logarithm, it is left out.
    """
    series = []
    for measure in measures:
        shares = [(point["num_centroids"], share(point, measure)) for point in curve["points"]]
        points = [(num, math.sqrt(part)) for num, part in shares if part and part > 1e-9]
        words, dash = _MEASURES[measure]
        rate = _rate(curve) if measure == "w2_squared" else ""
        label = f"{curve['name']}, {words}{rate}"
        if points:
            look = {"colour": colour(curve["arm"]), "dash": dash}
            series.append(Series(label=label, points=points, **look))
    return series


def _rate(curve: Mapping[str, Any]) -> str:
    """Return the fitted power of K, and the dimension it implies."""
    if curve.get("slope") is None:
        return ""
    dimension = "" if curve["dimension"] is None else f", d ≈ {curve['dimension']:.1f}"
    return f": W2 ∝ K^{curve['slope']:.2f}{dimension}".replace("-", "−")


def w2_figure(series: Sequence[Series]) -> Chart | None:
    """Return a chart of such series, both axes logarithmic; ``None`` without any."""
    points = [point for line in series for point in line.points]
    if not points:
        return None
    nums, heights = zip(*points, strict=True)
    x = logarithmic("K, points per class", nums, at=sorted(set(nums)))
    y = logarithmic("W2 / standard deviation of a class", heights)
    return Chart(series=series, x=x, y=y)
