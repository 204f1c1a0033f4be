"""Groups of students as tables: accuracies, codebooks, cost, two fields against each other;
and all of it as plain fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from ddoq.errors import DataError, did_you_mean
from ddoq.report.formats import (
    DASH,
    interval,
    num_bytes,
    number,
    percent,
    relative,
    saved,
    word,
)
from ddoq.report.groups import LABEL, PARTS, SETTING, Group, values_of
from ddoq.report.view import View, table_of

#: What two groups must share to stand in one pivot, unless it is the row or the column;
#: ``arm`` brings its parts.
_BLOCK = (*SETTING, "ipc", "arm", "condition", "variant", "split")
#: Cells of ``accuracy_cells`` that no table goes without.
ALWAYS = ("top-1 %", "95 % interval", "seeds")


def arm_table(
    title: str,
    groups: Sequence[Group],
    cells: Callable[[Group], dict[str, str]],
    main_arm: str = "",
    **about: Any,
) -> View | None:
    """Return a table with a line for each group, ``None`` without any.
    Whatever setting they share is said in its title, the others are columns.

    Args:
        title: what it shows.
        groups: in the order of the lines.
        cells: returns what is behind the arm's name.
        main_arm: whose lines stand out.
        about: what else a view has; ``num_left`` counts only the words behind the name.
    """
    shared, columns = _constant(groups, (*SETTING, "ipc", "condition"))
    about["num_left"] = len(columns) + 1 + about.get("num_left", 0)
    return table_of(
        (
            {name: word(name, group[name]) for name in columns}
            | {"arm": group["name"]}
            | cells(group)
            for group in groups
        ),
        title=f"{title}{': ' if shared else ''}{shared}",
        bold=frozenset(n for n, group in enumerate(groups) if group["arm"] == main_arm),
        **about,
    )


def accuracy_view(groups: Sequence[Group], split: str, main_arm: str = "") -> View | None:
    """Return the table of all groups of a split; ``None`` where there are none."""
    return arm_table(
        f"Top-1 on {split}",
        [group for group in groups if group["split"] == split],
        accuracy_cells,
        main_arm,
        name=f"accuracy-{split}",
        spare=(
            *("made of", "ECE %", "top-5 %", "W2² equal", "best epoch", "W2² own"),
            *("bytes", "images"),
        ),
        note=(
            "Last epoch, mean ± standard deviation over seeds; "
            "best epoch is chosen on this split, only to compare with papers that report it. "
            "ECE: expected calibration error, 15 bins. "
            "W2²: of the codebook to the latents, over their variance, with the points' own "
            "masses and with equal ones. –: not known, or no spread."
        ),
    )


def accuracy_cells(group: Group) -> dict[str, str]:
    """Return what is said about the accuracy of a group: first what no table goes without."""
    parts = [group[name] for name in ("method", "quantizer", "weighting", "generator", "guidance")]
    return {
        "top-1 %": percent(group["accuracy"]),
        "95 % interval": interval(group["accuracy"]),
        "seeds": str(group["accuracy"].num),
        "best epoch": percent(group["best_epoch"]),
        "top-5 %": percent(group["top5"]),
        "ECE %": percent(group["ece"]),
        "images": _budget(group),
        "bytes": num_bytes(group["num_bytes"]),
        "W2² own": relative(group, "w2_squared"),
        "W2² equal": relative(group, "w2_squared_uniform"),
        "made of": " · ".join(filter(None, parts)) or DASH,
    }


def _budget(group: Group) -> str:
    """Return how many images students see, and in how many these are stored, if those are fewer."""
    seen, stored = group["num_images"], group["num_stored"]
    inside = "" if stored in (None, seen) else f" in {number(stored, 0)}"
    return number(seen, 0) + inside


def codebook_view(groups: Sequence[Group], main_arm: str = "") -> View | None:
    """Return how well the points of every group stand for the latents; ``None`` without any."""
    groups = [group for group in groups if group["w2_squared"] is not None]
    return arm_table("Codebooks", groups, _codebook_cells, main_arm, name="codebooks", num_left=1)


def _codebook_cells(group: Group) -> dict[str, str]:
    measures = {**group, "effective_size": group["effective_points"]}
    of = "" if group["num_points"] is None else f" of {group['num_points']:.4g}"
    cells = quality_cells(measures)
    return (
        {"quantizer": word("quantizer", group["quantizer"])}
        | cells
        | {"effective points": cells["effective points"] + of}
    )


def quality_cells(measures: Mapping[str, Any]) -> dict[str, str]:
    """Return what all tables say about a codebook; distances are shares of the variance."""
    return {
        "W2² own masses": relative(measures, "w2_squared"),
        "W2² equal masses": relative(measures, "w2_squared_uniform"),
        "saved by masses, %": saved(measures),
        "held-out distortion": relative(measures, "held_out_distortion"),
        "effective points": number(measures["effective_size"], 1),
        "dispersion": number(measures["dispersion"], 2),
    }


def cost_view(groups: Sequence[Group], main_arm: str = "") -> View | None:
    """Return what every group cost."""
    return arm_table(
        "Cost",
        groups,
        _cost_cells,
        main_arm,
        name="costs",
        note=(
            "Shared: what several arms need and was computed once (index, latents, fitted "
            "networks). Distil: codebook, images and labels of one set. An image: its share of "
            "making them. Device-hours: all that stands behind the group's students, one device "
            "each. "
            "Bytes: those of one set, with its images, soft labels, and weights with metadata."
        ),
    )


def _cost_cells(group: Group) -> dict[str, str]:
    return {
        "shared, s": number(group["shared_seconds"], 1),
        "distil, s": number(group["distil_seconds"], 1),
        "an image, s": number(group["image_seconds"], 2),
        "student, s": number(group["seconds"], 1),
        "device-hours": number(group["device_hours"], 3),
        "peak MiB": number(group["peak_mib"], 0),
        "GPU peak MiB": number(group["gpu_peak_mib"], 0),
        "bytes": num_bytes(group["num_bytes"]),
        "images": num_bytes(group["image_bytes"]),
        "soft labels": num_bytes(group["label_bytes"]),
        "weights": num_bytes(group["weight_bytes"]),
    }


# --- two fields against each other ------------------------------------------------------------


def pivots(
    groups: Sequence[Group],
    row: str,
    column: str,
    least: int = 2,
    heading: str = "",
    main_arm: str = "",
    name: str = "",
) -> list[View]:
    """Return tables of accuracies by two fields, one for each combination of all the others.

    Groups are never averaged. The full data stand beside all others. A column that is a dataset is
    a dataset with its protocol, labels, teacher and student: each has its own.

    Args:
        groups: of any rows.
        row: a field.
        column: another one.
        least: tables with fewer columns are left out; one of the full data alone does not count.
        heading: of the tables; by default the two fields.
        main_arm: whose row stands out.
        name: of the tables in a page.

    Raises:
        DataError: a field that groups do not have.
    """
    fields = (*LABEL, *PARTS, "condition", "variant")
    for field in (row, column):
        if field not in fields:
            raise DataError(
                f"report: --pivot {field}: there is no such field", did_you_mean(field, fields)
            )
    blocks: dict[tuple, list[Group]] = {}
    names = [name for name in _BLOCK if name not in _shown_by(row, column)]
    names += ["table"] * (column == "value")
    for group in _beside_full(groups, row, column):
        blocks.setdefault(tuple(group[name] for name in names), []).append(group)
    different = _constant(groups, names)[1]
    views = []
    for values, cells in blocks.items():
        block = dict(zip(names, values, strict=True))
        setting = ", ".join(f"{field} {block[field]}" for field in different if block[field])
        distilled = [group for group in cells if not group["is_full"]] or cells
        if len({group[column] for group in distilled}) >= least:
            frame = _pivot(cells, row, column)
            views.append(
                View(
                    title=": ".join(filter(None, (heading or f"{row} × {column}", setting))),
                    frame=frame,
                    bold=frozenset(n for n, arm in enumerate(frame[row]) if arm == main_arm),
                    note="Top-1 in percent, last epoch, mean ± standard deviation (seeds).",
                    name=name if not views else "",
                )
            )
    return views


def _pivot(groups: Sequence[Group], row: str, column: str) -> pd.DataFrame:
    """Return accuracies as text, by two fields."""
    parts = SETTING if column == "dataset" else (column,)
    parts = [name for name in parts if name == column or len({g[name] for g in groups}) > 1]
    heads = [" · ".join(word(name, group[name]) for name in parts) for group in groups]
    cells = pd.DataFrame(
        {
            "row": [
                word(row, group[row]) + (f" ({group['variant']})" if group["variant"] else "")
                for group in groups
            ],
            "head": heads,
            "cell": [f"{percent(g['accuracy'])} ({g['accuracy'].num})" for g in groups],
        }
    ).drop_duplicates(["row", "head"], keep="last")
    values = dict(zip(heads, (group[column] for group in groups), strict=True))
    if all(value is None or isinstance(value, int | float) for value in values.values()):
        values = dict(sorted(values.items(), key=lambda item: (item[1] is None, item[1] or 0)))
    frame = cells.pivot(index="row", columns="head", values="cell").fillna(DASH)
    frame = frame.loc[list(dict.fromkeys(cells["row"])), list(values)]
    return frame.rename_axis(index=row, columns=None).reset_index()


def _shown_by(row: str, column: str) -> set[str]:
    """Return what rows and columns already show, themselves included."""
    shown = {row, column, "variant"}
    if {row, column} & {"value", "table", *PARTS}:
        shown.add("condition")
    if column == "value":
        shown |= {"labels", "teacher", "student"}
    return shown | set(SETTING) if "dataset" in (row, column) else shown


def _beside_full(groups: Sequence[Group], row: str, column: str) -> Iterator[Group]:
    """Yield every group; those of the full data once for all that they stand beside."""
    same = ("dataset", "protocol", "student", "split")
    open_to = [name for name in ("labels", "teacher", "ipc") if name not in (row, column)]
    for group in groups:
        beside = [
            other
            for other in groups
            if other["ipc"] is not None and all(other[name] == group[name] for name in same)
        ]
        if group["ipc"] is not None or not beside:
            yield group | {"is_full": group["ipc"] is None}
            continue
        for values in dict.fromkeys(tuple(other[name] for name in open_to) for other in beside):
            yield group | dict(zip(open_to, values, strict=True)) | {"is_full": True}


def varying(groups: Sequence[Group], names: Sequence[str]) -> list[str]:
    """Return those of the fields in which some groups differ."""
    return [name for name, values in values_of(groups, names).items() if len(values) > 1]


def _constant(groups: Sequence[Group], names: Sequence[str]) -> tuple[str, list[str]]:
    """Return the fields that are the same everywhere, as text, and the names of the others."""
    values = values_of(groups, names)
    text = ", ".join(
        f"{name} {word(name, alike[0])}"
        for name, alike in values.items()
        if len(alike) == 1 and alike[0] not in (None, "")
    )
    return text, varying(groups, names)


# --- plain fields -----------------------------------------------------------------------------

#: Columns of a group's plain fields that are of one of its summaries.
_OF_SUMMARIES = {
    "num_seeds": ("accuracy", "num"),
    "mean": ("accuracy", "mean"),
    "std": ("accuracy", "std"),
    "ci95": ("accuracy", "ci95"),
    "best_mean": ("best_epoch", "mean"),
    "top5_mean": ("top5", "mean"),
    "ece": ("ece", "mean"),
}
_PLAIN = (
    *(*LABEL, "variant", *_OF_SUMMARIES),
    *("nll", "num_images", "num_bytes", "w2_squared", "w2_squared_uniform", "variance"),
    *("held_out_distortion", "seconds", "image_seconds", "distil_seconds", "shared_seconds"),
    *("peak_mib", "gpu_peak_mib", "device_hours", "dataset_source", *PARTS),
    *("epochs", "num_steps", "batch_size", "learning_rate", "selection"),
    *("device", "host", "git", "seeds", "top1", "runs"),
    *("dataset_key", "protocol_key", "recipe_key", "group_key"),
)


def plain(groups: Sequence[Group]) -> pd.DataFrame:
    """Return groups as flat rows of numbers and words, missing for what is not known.

    Accuracies are fractions; ``top1`` has that of each seed, which is enough for a paired test.
    """
    frame = pd.DataFrame(groups, dtype=object)
    for column, (summary, part) in _OF_SUMMARIES.items():
        frame[column] = [own and getattr(own, part) for own in frame[summary]]
    for name in ("device", "host", "git", "run"):
        texts = ({str(row.get(name)) for row in rows} for rows in frame["rows"])
        frame["runs" if name == "run" else name] = [" ".join(sorted(own)) for own in texts]
    frame["seeds"] = [" ".join(str(row["seed"]) for row in rows) for rows in frame["rows"]]
    frame["top1"] = [" ".join(f"{row['top1']:.6g}" for row in rows) for rows in frame["rows"]]
    return frame.reindex(columns=list(_PLAIN))
