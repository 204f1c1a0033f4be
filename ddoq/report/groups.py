"""Students that differ in nothing but their seeds, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from ddoq.evaluation.statistics import Summary, summarize
from ddoq.report.variants import describe

Row = dict[str, Any]
#: What the rows of students that may be averaged say together: the fields in which they agree,
#: means of costs and measures, and summaries over seeds. ``ipc`` of the full data is ``None``:
#: they are the same at every one.
Group = dict[str, Any]

#: What a group is called by.
LABEL = (
    *("dataset", "protocol", "labels", "teacher", "student"),
    *("ipc", "arm", "table", "value", "split"),
)
#: What else a row says in words about its students.
PARTS = (
    *("method", "quantizer", "weighting", "generator", "guidance"),
    *("strength", "space", "allocation", "redraw"),
)
#: What a reader is told once where it is the same everywhere, and in a column where it is not.
SETTING = ("dataset", "protocol", "labels", "teacher", "student")
#: Fields of which a group has the mean over the rows that know it.
MEASURES = (
    *("nll", "num_images", "num_bytes", "w2_squared", "w2_squared_uniform", "variance"),
    *("held_out_distortion", "distortion", "num_points", "effective_points", "dispersion"),
    *("num_stored", "image_bytes", "label_bytes", "weight_bytes", "unlearned"),
    *("seconds", "image_seconds", "distil_seconds", "shared_seconds"),
    *("peak_mib", "gpu_peak_mib"),
)
#: Summaries over seeds by name, and the fields of rows that they are of.
SUMMARIES = {"accuracy": "top1", "best_epoch": "top1_best", "top5": "top5", "ece": "ece"}
#: Tables whose variation no field of ``LABEL`` but ``value`` shows.
_UNSEEN = ("augmentation", "pixels", "strength", "weighting")


def is_full(row: Row) -> bool:
    """Tell whether a student saw all training images: nothing was quantized."""
    return row.get("quantizer") is None and row["arm"] == "full"


def ipc_of(row: Row) -> int | None:
    """Return the number of images per class; ``None`` for the full data."""
    return None if is_full(row) else row["ipc"]


def groups_of(
    rows: Sequence[Row], config_of: Callable[[str], Mapping[str, Any]] = lambda run: {}
) -> list[Group]:
    """Return the groups of rows, in the order:
    split, data, protocol, student, images per class, arm.

    A student that several runs have counts once. Groups that would be called the same have a
    ``variant`` each, which says how they differ.

    Args:
        rows: of any runs.
        config_of: returns the configuration of a run by its name; empty where it is not known.
    """
    students = _students(rows)
    groups = [
        _group(own.sort_values("seed")["row"].tolist())
        for _, own in students.groupby("identity", sort=False)
    ]
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    _name_apart(groups, config_of)
    return sorted(groups, key=lambda group: _order(group, arms))


def _students(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the rows with what they must share to be averaged (``identity``), each student once.

    A row of an old run says less than one of the same student that was written later.
    """
    ordered = sorted(rows, key=lambda row: "group_key" not in row)
    students = pd.DataFrame(
        {
            "row": ordered,
            "seed": [row["seed"] for row in ordered],
            "student": [row.get("key") or (row.get("run"), row["seed"]) for row in ordered],
            "called": [tuple(_called(row).values()) for row in ordered],
            "identity": list(map(_identity, ordered)),
            "is_old": ["group_key" not in row for row in ordered],
        }
    )
    students = students[~(students["is_old"] & students.duplicated(["student", "called"]))]
    return students.drop_duplicates(["student", "identity"])


def _called(row: Row) -> dict[str, Any]:
    return {name: row.get(name) for name in LABEL} | {"ipc": ipc_of(row)}


def _identity(row: Row) -> tuple:
    """Return what two rows must share to be averaged."""
    setting = row.get("group_key") or (row.get("protocol_key"), row.get("setting"))
    return (*_called(row).values(), *(row.get(name) for name in PARTS), setting)


def _group(rows: Sequence[Row]) -> Group:
    first = rows[0]
    condition = f"{first['table']}={first['value']}" if first["table"] in _UNSEEN else ""
    return {
        **dict.fromkeys(PARTS),
        **{name: value for name, value in first.items() if _all_say(rows, name, value)},
        **_called(first),
        **{name: _mean(rows, name) for name in MEASURES},
        **{name: _summary(rows, name_of_row) for name, name_of_row in SUMMARIES.items()},
        "device_hours": _device_hours(rows),
        "condition": condition,
        "variant": "",
        "name": first["arm"],
        "rows": rows,
    }


def _all_say(rows: Sequence[Row], name: str, value: Any) -> bool:
    return all(row.get(name) == value for row in rows)


def _summary(rows: Sequence[Row], name: str) -> Summary | None:
    """Summarize a field; ``None`` where a row does not know it."""
    values = [row.get(name) for row in rows]
    return None if None in values else summarize(values)


def _mean(rows: Sequence[Row], name: str) -> float | None:
    values = [row[name] for row in rows if row.get(name) is not None]
    return fmean(values) if values else None


def _device_hours(rows: Sequence[Row]) -> float | None:
    """Return all that stands behind students, one device each; what they share is counted once."""
    shared, students = _mean(rows, "shared_seconds"), [row.get("seconds") for row in rows]
    sets = {row.get("set_key"): row.get("distil_seconds") for row in rows}
    if shared is None or None in students or None in sets.values():
        return None
    return (shared + sum(students) + sum(sets.values())) / 3600


def _name_apart(groups: Sequence[Group], config_of: Callable[[str], Mapping[str, Any]]) -> None:
    """Give the groups that would be called the same a ``variant`` each."""
    same: dict[tuple, list[Group]] = {}
    for group in groups:
        same.setdefault(tuple(group[name] for name in LABEL), []).append(group)
    for alike in same.values():
        if len(alike) > 1:
            runs = [group["rows"][0].get("run", "") for group in alike]
            for group, variant in zip(alike, describe(alike, runs, config_of), strict=True):
                group |= {"variant": variant, "name": f"{group['arm']} ({variant})"}


def _order(group: Group, arms: list[str]) -> tuple:
    comparison = (group["table"] != "main", group["table"], group["ipc"] or 0)
    return (
        group["split"] != "test",
        *(group[name] for name in ("dataset", "protocol", "student")),
        *comparison,
        arms.index(group["arm"]),
        *_number_first(group["value"]),
    )


def _number_first(value: Any) -> tuple[int, float, str]:
    try:
        return 0, float(value), ""
    except ValueError:
        return 1, 0.0, str(value)


def distinct(groups: Sequence[Group]) -> list[Group]:
    """Leave out groups of students that are already there:
    a comparison repeats the run's own setting.
    """
    seen: set[tuple] = set()
    kept = []
    for group in groups:
        name = tuple(group[field] for field in ("arm", "split", "ipc", "variant"))
        keys = {(*name, row["key"]) for row in group["rows"] if row.get("key")}
        if not keys or not keys <= seen:
            kept.append(group)
        seen |= keys
    return kept


def values_of(groups: Iterable[Group], names: Sequence[str]) -> dict[str, list[Any]]:
    """Return the different values of fields, in order.

    The full data have hard labels, no teacher and no number of images per class,
    whatever the others have.
    """
    groups = list(groups)
    own = [group for group in groups if group["ipc"] is not None] or groups
    return {
        name: list(
            dict.fromkeys(
                group[name] for group in (own if name in ("ipc", "labels", "teacher") else groups)
            )
        )
        for name in names
    }


def by_arm(groups: Iterable[Group], table: str) -> dict[str, Group]:
    """Return the groups of a table of one run, by arm."""
    return {group["arm"]: group for group in groups if group["table"] == table}
