"""Two arms on the same seeds: whatever a user compares, the main arm against the others,
what each part of it contributes, and DD-Ranking's scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ddoq.errors import DataError, did_you_mean
from ddoq.evaluation.ranking import (
    augmentation_robust_score,
    hard_label_recovery,
    improvement_over_random,
    label_robust_score,
)
from ddoq.evaluation.statistics import compare_paired, summarize
from ddoq.report.formats import DASH, decimal, interval, p_value, percent, score, word
from ddoq.report.groups import LABEL, PARTS, Group, Row, by_arm, is_full
from ddoq.report.select import Query, is_query, is_run, names_in, select
from ddoq.report.view import View, table_of

#: What two students must share, beside their seed, to be a pair.
_SHARED = ("dataset", "dataset_key", "split", "protocol", "student", "ipc", "table", "value", "arm")
#: The same for how they were trained; the full data have hard labels whatever the others have.
_TRAINED = ("labels", "teacher", "recipe_key")
_SHOWN = ("dataset", "protocol", "student", "ipc")
_MAIN = "main arm"
NOTE = (
    "Top-1 of the last epoch on the same seeds; effect size d_z: the mean difference over the "
    "standard deviation of the differences; p of the two-sided paired t test, not corrected for "
    "the number of comparisons. –: the differences have no spread."
)

Side = dict[int, float]  # top-1 by seed


def pair_cells(after: Side, before: Side) -> dict[str, str]:
    """Return the cells of one comparison; the seeds that both have are its pairs."""
    seeds = sorted(after.keys() & before.keys())
    paired = compare_paired([after[seed] for seed in seeds], [before[seed] for seed in seeds])
    return {
        "difference": percent(paired.difference, signed=True),
        "95 % interval": interval(paired.difference, low=-1),
        "d_z": decimal(paired.effect_size),
        "p": p_value(paired),
        "better / equal / worse": f"{paired.wins} / {paired.ties} / {paired.losses}",
        "pairs": str(paired.num),
    }


def top1_by_seed(group: Group) -> Side:
    """Return the accuracy of each student of a group."""
    return {row["seed"]: row["top1"] for row in group["rows"]}


# --- what a user compares ---------------------------------------------------------------------


def comparison_of(a: str, b: str, what: Sequence[str], outputs: Path) -> tuple[View, list[str]]:
    """Return the paired comparison of two arms, runs or queries among the rows of ``what``,
    and warnings about damaged rows.

    Raises:
        DataError: one of them does not exist or is ambiguous, or they have no pair of students.
    """
    if not what and all(is_run(Path(side)) for side in (a, b)):
        what = [a, b]
    selection = select(what, outputs)
    queries, rows = [text for text in what if is_query(text)], selection.rows
    if not any(part.startswith("split=") for text in (a, b, *queries) for part in text.split()):
        queries.append("split=test")
        rows = Query("split", ("test",)).keep(rows)
    sides = [_rows(text, rows, queries, outputs) for text in (a, b)]
    free = _free((a, b), sides, {row["arm"] for row in rows})
    return comparison((a, b), sides, free), selection.warnings


def _rows(text: str, rows: list[Row], queries: Sequence[str], outputs: Path) -> list[Row]:
    """Return the rows that an arm, a query or the name of a run stands for."""
    if is_query(text):
        for part in text.split():
            rows = Query.parse(part).keep(rows)
        return rows
    if any(row["arm"] == text for row in rows):
        return [row for row in rows if row["arm"] == text]
    try:
        own = select([text, *queries], outputs).rows
    except DataError as error:
        names = {row["arm"] for row in rows} | set(names_in(outputs))
        raise DataError(
            f"report: there is no arm, run or query '{text}'", did_you_mean(text, names)
        ) from error
    # The last arm of a run is its own.
    main = {row["run"]: row["arm"] for row in own if row["table"] == "main"}
    return [row | {"arm": _MAIN} if main.get(row["run"]) == row["arm"] else row for row in own]


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
            fields = ("protocol", "student", "ipc", *_TRAINED)
            free |= {name for name in fields if _is_single(name, sides)}
    if free & {"protocol", "student", "labels", "protocol_key"}:
        free.add("recipe_key")
    return free


def _is_single(field: str, sides: Sequence[list[Row]]) -> bool:
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
    fields = [*_SHARED, *(("protocol_key",) if one_is_full else _TRAINED)]
    fields = [name for name in fields if name not in free]
    first, second = (_students(*side, fields) for side in zip(names, sides, strict=True))
    students = first.merge(second, how="outer", on=["setting", "seed"], sort=False)
    # What runs have in common is the same students: there is nothing to compare.
    shared = students["key_x"].notna() & students["key_y"].notna()
    differ = set(students["setting"][shared & (students["key_x"] != students["key_y"])])
    settings = [setting for setting in dict.fromkeys(first["setting"]) if setting in differ]
    if not settings:
        raise DataError(
            f"report: no two different students of {names[0]} and {names[1]} share seed, "
            "data, protocol and ipc",
            "compare what was run with the same seeds and settings; "
            "name what may differ in queries, in quotes",
        )
    table = pd.DataFrame(settings, columns=fields, dtype=object)
    words_of = [name for name in fields if not name.endswith("_key")]
    several = [name for name in words_of if table[name].nunique(dropna=False) > 1]
    columns = list(dict.fromkeys([*(name for name in _SHOWN if name in fields), *several]))
    rows, left_out = [], []
    for setting, values in zip(settings, table.to_dict("records"), strict=True):
        own = students[[other == setting for other in students["setting"]]]
        words = {name: word("", values[name]) for name in columns}
        rows.append(words | _two_cells(own.dropna(subset=["top1_x", "top1_y"])))
        left_out += _left_out(names, own, ", ".join(words.values()))
    return table_of(
        rows,
        title=f"A: {names[0]}, B: {names[1]}",
        num_left=len(columns),
        note=" ".join(["Difference: A minus B.", NOTE, *left_out]),
    )


def _students(name: str, rows: Sequence[Row], fields: Sequence[str]) -> pd.DataFrame:
    """Return the students of a side: ``key``, ``top1``, and what pairs share,
    ``setting`` and ``seed``.

    Raises:
        DataError: several of them share all of it.
    """
    students: dict[tuple, Row] = {}
    for row in rows:
        place = (tuple(_value(row, field) for field in fields), row["seed"])
        other = students.setdefault(place, row)
        if other.get("key", other) != row.get("key", row):
            differ = [part for part in (*LABEL, *PARTS, "run") if other.get(part) != row.get(part)]
            example = f"{differ[0]}={row.get(differ[0])}" if differ else "a query"
            raise DataError(
                f"report: {name} has several students of seed {row['seed']} on {row['dataset']} "
                f"at ipc {row['ipc']}, which differ in {', '.join(differ) or 'their keys'}",
                f"say which, e.g. with {example}",
            )
    return pd.DataFrame(
        [
            (setting, seed, row["top1"], row.get("key") or str(sorted(row.items(), key=str)))
            for (setting, seed), row in students.items()
        ],
        columns=["setting", "seed", "top1", "key"],
    )


def _value(row: Row, field: str) -> Any:
    """Return a field; old rows say less about how a student was trained."""
    return row.get(field) or row.get("protocol_key") if field == "recipe_key" else row.get(field)


def _two_cells(pairs: pd.DataFrame) -> dict[str, str]:
    a, b = (dict(zip(pairs["seed"], pairs[name], strict=True)) for name in ("top1_x", "top1_y"))
    means = [f"{100 * pairs[name].mean():.1f}" for name in ("top1_x", "top1_y")]
    return dict(zip(("A %", "B %"), means, strict=True)) | pair_cells(a, b)


def _left_out(names: Sequence[str], students: pd.DataFrame, setting: str) -> Iterator[str]:
    """Name the seeds that only one side has."""
    for name, other in zip(names, ("top1_y", "top1_x"), strict=True):
        if seeds := sorted(students["seed"][students[other].isna()]):
            yield (
                f"Left out ({setting}): seeds {', '.join(map(str, seeds))}, which only {name} has."
            )


# --- of one run -------------------------------------------------------------------------------


def main_pairs(groups: Sequence[Group]) -> View | None:
    """Return the last arm of a run's main table against each of the others."""
    *others, main = by_arm(groups, "main").values()
    return table_of(
        (
            {f"{main['arm']} against": other["name"]}
            | pair_cells(top1_by_seed(main), top1_by_seed(other))
            for other in others
        ),
        title=f"{main['arm']} against the others",
        name="pairings",
        note=NOTE,
    )


def contributions(groups: Sequence[Group], configured: float | None) -> View | None:
    """Return what each part of the main arm adds, one at a time; ``None`` where nothing is known.

    Args:
        groups: of a run.
        configured: the strength of its generator.
    """
    main = by_arm(groups, "main")
    name = list(main)[-1]
    twin = main.get(f"{name}_uniform") or main.get(name.removesuffix("_weighted"))
    at = {group["strength"]: group for group in groups if group["table"] == "strength"}
    own = at.get(configured)
    changes = (
        ("choosing images by quantization, not at random", main.get("nearest"), main.get("random")),
        ("converged k-means, not D4M's single pass", twin, main.get("d4m")),
        ("weights", main[name], twin),
        ("diffusion at the configured strength, not bare decoding", own, at.get(0)),
        ("starting from the centroid, not from noise", own, at.get(1)),
    )
    rows = [
        {
            "ingredient": ingredient,
            "change": f"{_title(before)} → {_title(after)}",
            "split": after["split"],
        }
        | pair_cells(top1_by_seed(after), top1_by_seed(before))
        for ingredient, after, before in changes
        if after and before and after is not before
    ]
    return table_of(rows, title="What each part contributes", name="contributions", num_left=3)


def _title(group: Group) -> str:
    return f"strength {group['strength']:g}" if group["table"] == "strength" else group["arm"]


def scores(groups: Sequence[Group], main_arm: str) -> View | None:
    """Return DD-Ranking's scores of every arm of a run that has what they are made of,
    seed by seed; ``None`` where none has.
    """
    main = by_arm(groups, "main")
    kinds = {next(iter(reversed(main.values())))["labels"]: main}
    kinds |= _columns(groups, "labels")
    augmentation, hard = _columns(groups, "augmentation"), kinds.get("hard", {})
    if not {"full", "random"} <= main.keys() or not (augmentation or len(kinds) > 1):
        return None
    rows = [
        {"arm": arm} | _score_cells(arm, main["full"], kinds, augmentation)
        for arm in main
        if arm in hard and arm not in ("full", "random")
    ]
    return table_of(
        rows,
        title="DD-Ranking's scores",
        name="scores",
        bold=frozenset(n for n, row in enumerate(rows) if row["arm"] == main_arm),
        note=(
            "HLR, hard-label recovery: accuracy of the full data minus that of the arm, both with "
            "hard labels (lower is better). IOR: improvement over random images under the same "
            "labels. LRS, label-robust score: (e^a − e^−1) / (e − e^−1) of a = IOR/2 − HLR/2; "
            "ARS, augmentation-robust score, the same of the mean IOR with and without "
            "augmentation. On fractions, last epoch, mean ± standard deviation over seeds."
        ),
    )


def _columns(groups: Sequence[Group], table: str) -> dict[str, dict[str, Group]]:
    """Return the groups of a table of comparisons by what was varied, then by arm."""
    own = [group for group in groups if group["table"] == table]
    values = dict.fromkeys(group["value"] for group in own)
    return {value: {g["arm"]: g for g in own if g["value"] == value} for value in values}


def _score_cells(
    arm: str, full: Group, kinds: Mapping[str, dict[str, Group]], augmentation: Mapping[str, Any]
) -> dict[str, str]:
    hlr = _each(hard_label_recovery, full, kinds["hard"][arm])
    cells = {"HLR": score(summarize(hlr))}
    for kind, arms in kinds.items():
        cells |= {f"IOR, {kind}": DASH, f"LRS, {kind}": DASH}
        if arm in arms and "random" in arms:
            ior = _each(improvement_over_random, arms[arm], arms["random"])
            lrs = [label_robust_score(i, h) for i, h in zip(ior, hlr, strict=True)]
            cells |= {
                f"IOR, {kind}": score(summarize(ior)),
                f"LRS, {kind}": score(summarize(lrs)),
            }
    with_it, without = (augmentation.get(value, {}) for value in ("full", "none"))
    ars = None
    if arm in with_it and "random" in with_it:
        four = (with_it[arm], with_it["random"], without[arm], without["random"])
        ars = summarize(_each(augmentation_robust_score, *four))
    return cells | {"ARS": score(ars)}


def _each(measure: Callable[..., float], *groups: Group) -> list[float]:
    """Return a score of every seed."""
    accuracies = ([row["top1"] for row in group["rows"]] for group in groups)
    return [measure(*values) for values in zip(*accuracies, strict=True)]
