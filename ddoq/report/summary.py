"""Groups of students as tables: accuracies, two fields against each other, cost;
and all of it as plain fields.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from ddoq.errors import DataError, did_you_mean
from ddoq.report.groups import LABEL, PARTS, Group
from ddoq.report.tables import interval, num_bytes, number, percent, relative
from ddoq.report.view import View

#: What a reader is told once where it is the same everywhere, and in a column where it is not.
SETTING = ("dataset", "protocol", "labels", "teacher", "student")
#: What two groups must share to stand in one pivot, unless it is the row or the column;
#: ``arm`` brings its parts.
_BLOCK = (*SETTING, "ipc", "arm", "condition", "variant", "split")
PIVOTS = (("arm", "ipc"), ("student", "teacher"), ("arm", "dataset"))
#: What a field is where it is ``None``.
_NONE = {"ipc": "all"}


def main_view(groups: Sequence[Group], split: str) -> View | None:
    """Return the table of all groups of a split; ``None`` where there are none.

    Whatever is constant is said once.
    """
    groups = [group for group in groups if group["split"] == split]
    if not groups:
        return None
    said, columns = _constant(groups, (*SETTING, "ipc", "condition"))
    return View(
        f"Top-1 on {split}{': ' if said else ''}{said}",
        [
            *columns,
            "arm",
            "top-1 %",
            "95 % interval",
            "best epoch",
            "seeds",
            "images",
            "bytes",
            "W2² own",
            "W2² equal",
        ],
        [
            [
                *(_word(name, group[name]) for name in columns),
                group.name,
                percent(group.top1),
                interval(group.top1),
                _percent(group, "top1_best"),
                str(group.top1.num),
                _integer(group.mean("num_images")),
                _bytes(group.mean("num_bytes")),
                *(_w2(group, measure) for measure in ("w2_squared", "w2_squared_uniform")),
            ]
            for group in groups
        ],
        num_left=len(columns) + 1,
        note=(
            "Last epoch, mean ± standard deviation over seeds; "
            "best epoch is chosen on this split, only to compare with papers that report it. "
            "W2²: of the codebook to the latents, over their variance. –: not known."
        ),
    )


def cost_view(groups: Sequence[Group]) -> View:
    """Return what every group cost."""
    said, columns = _constant(groups, (*SETTING, "ipc", "condition"))
    return View(
        f"Cost{': ' if said else ''}{said}",
        [
            *columns,
            "arm",
            "shared, s",
            "distil, s",
            "student, s",
            "device-hours",
            "peak MiB",
            "GPU peak MiB",
            "bytes",
        ],
        [
            [
                *(_word(name, group[name]) for name in columns),
                group.name,
                *(
                    number(group.mean(name), 1)
                    for name in ("shared_seconds", "distil_seconds", "seconds")
                ),
                number(group.device_hours, 3),
                *(_integer(group.mean(name)) for name in ("peak_mib", "gpu_peak_mib")),
                _bytes(group.mean("num_bytes")),
            ]
            for group in groups
        ],
        num_left=len(columns) + 1,
        note=(
            "Shared: what several arms need and was computed once. "
            "Distil: codebook, images and labels of one set. "
            "Device-hours: all that stands behind the group's students."
        ),
    )


def pivots(groups: Sequence[Group], row: str, column: str, least: int = 2) -> list[View]:
    """Return tables of accuracies by two fields, one for each combination of all the others.

    Groups are never averaged. The full data stand beside all others. A column that is a dataset is
    a dataset with its protocol, labels, teacher and student: each has its own.

    Args:
        groups: of any rows.
        row: a field.
        column: another one.
        least: tables with fewer columns are left out; one of the full data alone does not count.

    Raises:
        DataError: a field that groups do not have.
    """
    known = (*LABEL, *PARTS, "condition", "variant")
    for name in (row, column):
        if name not in known:
            raise DataError(
                f"report: --pivot {name}: there is no such field", did_you_mean(name, known)
            )
    blocks: dict[tuple, list[tuple[dict[str, Any], Group]]] = {}
    names = [name for name in _BLOCK if name not in _shown_by(row, column)]
    for fields, group in _beside_full(groups, row, column):
        blocks.setdefault(tuple(fields[name] for name in names), []).append((fields, group))
    said = set(_constant(groups, names)[1])
    views = []
    for values, cells in blocks.items():
        different = [
            f"{name} {value}"
            for name, value in zip(names, values, strict=True)
            if name in said and value
        ]
        distilled = [
            (fields, group) for fields, group in cells if group["ipc"] is not None
        ] or cells
        if len(_pivot(distilled, row, column, "").columns) > least:
            views.append(_pivot(cells, row, column, ", ".join(different)))
    return views


def _pivot(cells: list[tuple[dict[str, Any], Group]], row: str, column: str, said: str) -> View:
    parts = SETTING if column == "dataset" else (column,)
    parts = [
        name for name in parts if name == column or len({fields[name] for fields, _ in cells}) > 1
    ]
    table: dict[str, dict[str, str]] = {}
    columns: dict[str, Any] = {}
    for fields, group in cells:
        head = " · ".join(_word(name, fields[name]) for name in parts)
        name = _word(row, fields[row]) + (f" ({group.variant})" if group.variant else "")
        columns[head] = fields[column]
        table.setdefault(name, {})[head] = f"{percent(group.top1)} ({group.top1.num})"
    if all(value is None or isinstance(value, int | float) for value in columns.values()):
        columns = dict(sorted(columns.items(), key=lambda one: (one[1] is None, one[1] or 0)))
    return View(
        f"{row} × {column}{': ' if said else ''}{said}",
        [row, *columns],
        [
            [name, *(row_cells.get(head, "–") for head in columns)]
            for name, row_cells in table.items()
        ],
        note="Top-1 in percent, last epoch, mean ± standard deviation (seeds).",
    )


def _shown_by(row: str, column: str) -> set[str]:
    """Return what rows and columns already show, themselves included."""
    shown = {row, column, "variant"}
    if {row, column} & {"value", "table", *PARTS}:
        shown.add("condition")
    return shown | set(SETTING) if "dataset" in (row, column) else shown


def _beside_full(
    groups: Sequence[Group], row: str, column: str
) -> Iterator[tuple[dict[str, Any], Group]]:
    """Yield the fields of every group; those of the full data once for all
    that they stand beside.
    """
    names = (*LABEL, *PARTS, "condition", "variant")
    same = ("dataset", "protocol", "student", "split")
    open_to = [name for name in ("labels", "teacher", "ipc") if name not in (row, column)]
    for group in groups:
        fields = {name: group[name] for name in names}
        beside = [
            o
            for o in groups
            if o["ipc"] is not None and all(o[name] == group[name] for name in same)
        ]
        if group["ipc"] is not None or not beside:
            yield fields, group
            continue
        for values in dict.fromkeys(tuple(one[name] for name in open_to) for one in beside):
            yield fields | dict(zip(open_to, values, strict=True)), group


def varying(groups: Sequence[Group], names: Sequence[str]) -> list[str]:
    """Return those of the fields in which some groups differ."""
    return [name for name, found in _values(groups, names).items() if len(found) > 1]


def _constant(groups: Sequence[Group], names: Sequence[str]) -> tuple[str, list[str]]:
    """Return the fields that are the same everywhere, as text, and the names of the others."""
    values = _values(groups, names)
    known = {
        name: found[0]
        for name, found in values.items()
        if len(found) == 1 and found[0] not in (None, "")
    }
    said = ", ".join(f"{name} {_word(name, value)}" for name, value in known.items())
    return said, varying(groups, names)


def _values(groups: Sequence[Group], names: Sequence[str]) -> dict[str, list[Any]]:
    """Return the different values of fields, in order.

    The full data have hard labels, no teacher and no number of images per class,
    whatever the others have.
    """
    own = [group for group in groups if group["ipc"] is not None] or groups
    return {
        name: list(
            dict.fromkeys(
                group[name] for group in (own if name in ("ipc", "labels", "teacher") else groups)
            )
        )
        for name in names
    }


def record(group: Group) -> dict[str, Any]:
    """Return a group as a flat row of numbers and words; ``None`` for what is not known.

    Accuracies are fractions.
    """
    best, top5 = group.summary("top1_best"), group.summary("top5")
    named = (
        "dataset_source",
        *PARTS,
        "epochs",
        "num_steps",
        "batch_size",
        "learning_rate",
        "selection",
    )
    averaged = (
        "ece",
        "nll",
        "num_images",
        "num_bytes",
        "w2_squared",
        "w2_squared_uniform",
        "variance",
    )
    costs = (
        "held_out_distortion",
        "seconds",
        "distil_seconds",
        "shared_seconds",
        "peak_mib",
        "gpu_peak_mib",
    )
    return {
        **{name: group[name] for name in (*LABEL, "variant")},
        "num_seeds": group.top1.num,
        **{name: _finite(getattr(group.top1, name)) for name in ("mean", "std", "ci95")},
        "best_mean": best and best.mean,
        "top5_mean": top5 and top5.mean,
        **{name: group.mean(name) for name in (*averaged, *costs)},
        "device_hours": group.device_hours,
        **{name: group[name] for name in named},
        **{
            name: " ".join(sorted({str(row.get(name)) for row in group.rows}))
            for name in ("device", "host", "git")
        },
        "seeds": " ".join(str(row["seed"]) for row in group.rows),
        # Of each seed: enough for a paired test.
        "top1": " ".join(f"{row['top1']:.6g}" for row in group.rows),
        "runs": " ".join(sorted({row["run"] for row in group.rows})),
        **{
            name: group[name] for name in ("dataset_key", "protocol_key", "recipe_key", "group_key")
        },
    }


def _word(name: str, value: Any) -> str:
    if value in (None, ""):
        return _NONE.get(name, "–")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _percent(group: Group, field: str) -> str:
    summary = group.summary(field)
    return "–" if summary is None else percent(summary)


def _w2(group: Group, measure: str) -> str:
    known = {name: group.mean(name) for name in (measure, "variance")}
    return "–" if None in known.values() else relative(known, measure)


def _integer(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _bytes(value: float | None) -> str:
    return "–" if value is None else num_bytes(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
