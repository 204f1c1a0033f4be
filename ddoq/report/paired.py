"""Two arms, runs or queries on the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddoq.errors import DataError, did_you_mean
from ddoq.evaluation.statistics import compare_paired
from ddoq.report.gather import Row, is_query, is_run, names_in, select
from ddoq.report.groups import LABEL, PARTS, is_full
from ddoq.report.query import Query
from ddoq.report.sweep_table import warn
from ddoq.report.tables import decimal, interval, p_value, percent
from ddoq.report.view import View, show
from ddoq.utils.console import console

#: What two students must share, beside their seed, to be a pair.
_SHARED = ("dataset", "dataset_key", "split", "protocol", "student", "ipc", "table", "value", "arm")
#: The same for how they were trained; the full data have hard labels whatever the others have.
_TRAINED = ("labels", "teacher", "recipe_key")
_SHOWN = ("dataset", "protocol", "student", "ipc")
_MAIN = "main arm"
_NOTE = (
    "Top-1 of the last epoch, A minus B on the same seeds; "
    "p of the two-sided paired t test, not corrected for the number of comparisons."
)

Side = dict[tuple, dict[int, Row]]  # by what is shared, then by seed


def print_comparison(a: str, b: str, what: Sequence[str], outputs: Path) -> None:
    """Print the paired comparison of two arms, runs or queries among the rows of ``what``.

    Raises:
        DataError: one of them does not exist or is ambiguous, or they have no pair of students.
    """
    if not what and all(is_run(Path(side)) for side in (a, b)):
        what = [a, b]
    selection = select(what, outputs)
    warn(selection.warnings)
    queries = [text for text in what if is_query(text)]
    rows = selection.rows
    if not any(part.startswith("split=") for text in (a, b, *queries) for part in text.split()):
        queries.append("split=test")
        rows = Query("split", ("test",)).keep(rows)
    sides = [_rows(text, rows, queries, outputs) for text in (a, b)]
    show(comparison((a, b), sides, _free((a, b), sides, {row["arm"] for row in rows})), console)


def _rows(text: str, rows: list[Row], queries: Sequence[str], outputs: Path) -> list[Row]:
    """Return the rows that an arm, a query or the name of a run stands for."""
    if is_query(text):
        for part in text.split():
            rows = Query.parse(part).keep(rows)
        return rows
    if any(row["arm"] == text for row in rows):
        return [row for row in rows if row["arm"] == text]
    try:
        found = select([text, *queries], outputs).rows
    except DataError as error:
        known = {row["arm"] for row in rows} | set(names_in(outputs))
        raise DataError(
            f"report: there is no arm, run or query '{text}'", did_you_mean(text, known)
        ) from error
    # The last arm of a run is its own.
    main = {row["run"]: row["arm"] for row in found if row["table"] == "main"}
    return [row | {"arm": _MAIN} if main.get(row["run"]) == row["arm"] else row for row in found]


def _free(names: Sequence[str], sides: Sequence[list[Row]], arms: set[str]) -> set[str]:
    """Return the fields in which a pair may differ:
    arms, what queries name, and the settings of two runs.
    """
    free: set[str] = set()
    for text in names:
        if is_query(text):
            free |= {part.partition("=")[0] for part in text.split()}
        elif text in arms:
            free.add("arm")
        else:  # where a side has several values, these are what its students are paired by
            free |= {
                name for name in ("protocol", "student", "ipc", *_TRAINED) if _single(name, sides)
            }
    return (
        free | {"recipe_key"} if free & {"protocol", "student", "labels", "protocol_key"} else free
    )


def _single(field: str, sides: Sequence[list[Row]]) -> bool:
    return all(len({_value(row, field) for row in rows if not is_full(row)}) <= 1 for rows in sides)


def comparison(names: tuple[str, str], sides: Sequence[list[Row]], free: set[str]) -> View:
    """Return the differences of two sets of rows, seed by seed, for every setting that both have.

    Args:
        names: of the two.
        sides: their rows.
        free: fields in which a pair may differ.

    Raises:
        DataError: no student of one has its counterpart in the other, or more than one.
    """
    one_is_full = any(all(map(is_full, rows)) for rows in sides)
    fields = [
        name
        for name in (*_SHARED, *(("protocol_key",) if one_is_full else _TRAINED))
        if name not in free
    ]
    first, second = (
        _by_setting(name, rows, fields) for name, rows in zip(names, sides, strict=True)
    )
    both = [
        setting
        for setting in first
        if setting in second and first[setting].keys() & second[setting].keys()
    ]
    # What runs have in common is the same students: there is nothing to compare.
    both = [setting for setting in both if not _same(first[setting], second[setting])]
    if not both:
        raise DataError(
            f"report: no two different students of {names[0]} and {names[1]} share seed, "
            "data, protocol and ipc",
            "compare what was run with the same seeds and settings; "
            "name what may differ in queries, in quotes",
        )
    found = {setting: dict(zip(fields, setting, strict=True)) for setting in both}
    several = [
        name
        for name in fields
        if not name.endswith("_key") and len({one[name] for one in found.values()}) > 1
    ]
    columns = list(dict.fromkeys([*(name for name in _SHOWN if name in fields), *several]))
    rows, left_out = [], []
    for setting, values in found.items():
        words = ["–" if values[name] in (None, "") else str(values[name]) for name in columns]
        rows.append([*words, *_cells(first[setting], second[setting])])
        left_out += _left_out(names, (first[setting], second[setting]), ", ".join(words))
    return View(
        f"A: {names[0]}, B: {names[1]}",
        [
            *columns,
            "A %",
            "B %",
            "A − B",
            "95 % interval",
            "d_z",
            "p",
            "better / equal / worse",
            "pairs",
        ],
        rows,
        num_left=len(columns),
        note=" ".join([_NOTE, *left_out]),
    )


def _by_setting(name: str, rows: Sequence[Row], fields: Sequence[str]) -> Side:
    found: Side = {}
    for row in rows:
        students = found.setdefault(tuple(_value(row, field) for field in fields), {})
        other = students.setdefault(row["seed"], row)
        if other.get("key", other) != row.get("key", row):
            differ = [part for part in (*LABEL, *PARTS, "run") if other.get(part) != row.get(part)]
            example = f"{differ[0]}={row.get(differ[0])}" if differ else "a query"
            raise DataError(
                f"report: {name} has several students of seed {row['seed']} on {row['dataset']} "
                f"at ipc {row['ipc']}, which differ in {', '.join(differ) or 'their keys'}",
                f"say which, e.g. with {example}",
            )
    return found


def _value(row: Row, field: str) -> Any:
    """Return a field; old rows say less about how a student was trained."""
    return row.get(field) or row.get("protocol_key") if field == "recipe_key" else row.get(field)


def _same(first: dict[int, Row], second: dict[int, Row]) -> bool:
    return all(
        first[seed] == second[seed] or _key(first[seed]) == _key(second[seed])
        for seed in first.keys() & second
    )


def _key(row: Row) -> Any:
    return row.get("key") or id(row)


def _cells(first: dict[int, Row], second: dict[int, Row]) -> list[str]:
    seeds = sorted(first.keys() & second.keys())
    values = [[side[seed]["top1"] for seed in seeds] for side in (first, second)]
    paired = compare_paired(*values)
    return [
        *(f"{100 * sum(one) / len(one):.1f}" for one in values),
        percent(paired.difference, signed=True),
        interval(paired.difference, low=-1),
        decimal(paired.effect_size),
        p_value(paired.p_value),
        f"{paired.wins} / {paired.ties} / {paired.losses}",
        str(paired.num),
    ]


def _left_out(names: Sequence[str], sides: Sequence[dict[int, Row]], setting: str) -> list[str]:
    """Name the seeds that only one side has."""
    found = []
    for name, own, other in zip(names, sides, reversed(sides), strict=True):
        alone = sorted(own.keys() - other.keys())
        if alone:
            found.append(
                f"Left out ({setting}): seeds {', '.join(map(str, alone))}, which only {name} has."
            )
    return found
