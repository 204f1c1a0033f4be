"""Arms beside each other: on the same seeds, under other students, teachers and labels,
and by DD-Ranking's scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddoq.evaluation.ranking import (
    augmentation_robust_score,
    hard_label_recovery,
    improvement_over_random,
    label_robust_score,
)
from ddoq.evaluation.statistics import Paired, Summary, compare_paired, summarize
from ddoq.report.collect import Line


@dataclass(frozen=True)
class Pairing:
    """The main arm against another one."""

    arm: str
    paired: Paired


@dataclass(frozen=True)
class Pivot:
    """Accuracies of arms (rows) under variations of the evaluation (columns)."""

    table: str
    columns: list[str]
    rows: dict[str, list[Line | None]]


@dataclass(frozen=True)
class Score:
    """DD-Ranking's scores of an arm, over seeds;
    ``None`` where a run does not have what they are made of.
    """

    arm: str
    hlr: Summary
    ior: dict[str, Summary]  # by kind of labels
    lrs: dict[str, Summary]
    ars: Summary | None


def pairings(main: list[Line]) -> list[Pairing]:
    """Compare the last arm of the main table with each of the others, on the same seeds."""
    *others, own = main
    return [
        Pairing(other.label, compare_paired(own.accuracies, other.accuracies)) for other in others
    ]


def pivot(table: str, found: list[Line]) -> Pivot | None:
    """Arrange the lines of a comparison; ``None`` where there are none."""
    if not found:
        return None
    columns = list(dict.fromkeys(line.label for line in found))
    rows: dict[str, list[Line | None]] = {}
    for line in found:
        rows.setdefault(line.arm, [None] * len(columns))[columns.index(line.label)] = line
    return Pivot(table, columns, rows)


def scores(
    main: list[Line], own_labels: str, labels: Pivot | None, augmentation: Pivot | None
) -> list[Score]:
    """Return DD-Ranking's scores of every arm that has what they are made of, seed by seed.

    Args:
        main: the main table.
        own_labels: the kind of labels it was made with.
        labels: the arms with other kinds of labels, hard ones among them.
        augmentation: the arms with (``full``) and without (``none``) augmentation.
    """
    by_arm = {line.arm: line for line in main}
    kinds = {own_labels: by_arm} | {
        kind: _column(labels, kind) for kind in (labels.columns if labels else ())
    }
    hard, real = kinds.get("hard", {}), by_arm.get("full")
    if real is None or "random" not in by_arm:
        return []
    found = []
    for arm in by_arm:
        if arm in ("full", "random") or arm not in hard:
            continue
        hlr = _each(hard_label_recovery, real, hard[arm])
        measured = {
            kind: lines for kind, lines in kinds.items() if arm in lines and "random" in lines
        }
        ior = {
            kind: _each(improvement_over_random, ls[arm], ls["random"])
            for kind, ls in measured.items()
        }
        lrs = {
            kind: [label_robust_score(i, h) for i, h in zip(each, hlr, strict=True)]
            for kind, each in ior.items()
        }
        found.append(
            Score(
                arm,
                summarize(hlr),
                {kind: summarize(each) for kind, each in ior.items()},
                {kind: summarize(each) for kind, each in lrs.items()},
                _ars(arm, augmentation),
            )
        )
    return found if labels or augmentation else []


def _ars(arm: str, augmentation: Pivot | None) -> Summary | None:
    full, none = _column(augmentation, "full"), _column(augmentation, "none")
    if arm not in full or "random" not in full:
        return None
    four = (full[arm], full["random"], none[arm], none["random"])
    return summarize(_each(augmentation_robust_score, *four))


def _column(table: Pivot | None, name: str) -> dict[str, Line]:
    if table is None:
        return {}
    place = table.columns.index(name)
    return {arm: lines[place] for arm, lines in table.rows.items() if lines[place] is not None}


def _each(score, *lines: Line) -> Sequence[float]:
    return [score(*values) for values in zip(*(line.accuracies for line in lines), strict=True)]
