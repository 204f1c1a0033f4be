"""Students that differ in nothing but their seeds, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from ddoq.evaluation.statistics import Summary, summarize

Row = dict[str, Any]

#: What a group is called by.
LABEL = (
    "dataset",
    "protocol",
    "labels",
    "teacher",
    "student",
    "ipc",
    "arm",
    "table",
    "value",
    "split",
)
#: What else a row says in words about its students.
PARTS = (
    "method",
    "quantizer",
    "weighting",
    "generator",
    "strength",
    "space",
    "allocation",
    "redraw",
)
#: Tables whose variation no field of ``LABEL`` but ``value`` shows.
_UNSEEN = ("augmentation", "strength", "weighting")


@dataclass(frozen=True)
class Group:
    """Students that may be averaged: the same in all but the seed, each of them once.

    ``variant`` says how a group differs from others that would be called the same;
    empty where none is.
    """

    rows: tuple[Row, ...]
    variant: str = ""

    def __getitem__(self, name: str) -> Any:
        """Return a field that all rows share; ``None`` where they do not say.

        ``ipc`` of the full data is ``None``, since they are the same at every
        ``ipc``; ``condition`` is what sets the group apart that its label does not
        show, e.g. ``strength=0.4``.
        """
        first = self.rows[0]
        if name == "ipc" and is_full(first):
            return None
        if name == "condition":
            return f"{first['table']}={first['value']}" if first["table"] in _UNSEEN else ""
        return self.variant if name == "variant" else first.get(name)

    @property
    def label(self) -> tuple:
        """What the group is called by."""
        return tuple(self[name] for name in LABEL)

    @property
    def name(self) -> str:
        """The arm, and how it differs from another of that name."""
        return f"{self['arm']} ({self.variant})" if self.variant else self["arm"]

    @cached_property
    def top1(self) -> Summary:
        """Of the last epoch."""
        return summarize([row["top1"] for row in self.rows])

    def summary(self, field: str) -> Summary | None:
        """Summarize a field; ``None`` where a row does not know it."""
        values = [row.get(field) for row in self.rows]
        return None if None in values else summarize(values)

    def mean(self, field: str) -> float | None:
        """Return the mean of a field over the rows that know it."""
        known = [row[field] for row in self.rows if row.get(field) is not None]
        return fmean(known) if known else None

    @property
    def device_hours(self) -> float | None:
        """All that stands behind these students, one device each;
        what they share is counted once.
        """
        shared, students = self.mean("shared_seconds"), [row.get("seconds") for row in self.rows]
        sets = {row.get("set_key"): row.get("distil_seconds") for row in self.rows}
        if shared is None or None in students or None in sets.values():
            return None
        return (shared + sum(students) + sum(sets.values())) / 3600


def groups_of(rows: Sequence[Row]) -> list[Group]:
    """Return the groups of rows, in the order:
    split, data, protocol, student, images per class, arm.

    A student that several runs have counts once.
    """
    found: dict[tuple, dict[Any, Row]] = {}
    seen: set[tuple] = set()
    # Those that say more come first.
    for row in sorted(rows, key=lambda row: "group_key" not in row):
        name = row.get("key") or (row.get("run"), row["seed"])
        student = (name, *_called(row))
        if "group_key" in row or student not in seen:
            found.setdefault(_identity(row), {}).setdefault(name, row)
        seen.add(student)
    groups = [
        Group(tuple(sorted(students.values(), key=lambda row: row["seed"])))
        for students in found.values()
    ]
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    return sorted(groups, key=lambda group: _order(group, arms))


def _called(row: Row) -> tuple:
    """Return the values of ``LABEL``."""
    return tuple(Group((row,))[name] for name in LABEL)


def _identity(row: Row) -> tuple:
    """Return what two rows must share to be averaged."""
    setting = row.get("group_key") or (row.get("protocol_key"), row.get("setting"))
    return (*_called(row), *(row.get(name) for name in PARTS), setting)


def is_full(row: Row) -> bool:
    """Tell whether a student saw all training images: nothing was quantized."""
    return row.get("quantizer") is None and row["arm"] == "full"


def _order(group: Group, arms: list[str]) -> tuple:
    names = ("dataset", "protocol", "student")
    comparison = (group["table"] != "main", group["table"], group["ipc"] or 0)
    return (
        group["split"] != "test",
        *(group[name] for name in names),
        *comparison,
        arms.index(group["arm"]),
    ) + (_number_first(group["value"]))


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
        keys = {
            (*(group[name] for name in ("arm", "split", "ipc", "variant")), row.get("key"))
            for row in group.rows
            if row.get("key")
        }
        if not keys or not keys <= seen:
            kept.append(group)
        seen |= keys
    return kept


def named_apart(
    groups: Sequence[Group], describe: Callable[[list[Group]], list[str]]
) -> list[Group]:
    """Give the groups that would be called the same a ``variant`` each.

    Args:
        groups: of any rows.
        describe: returns how groups differ, one text per group, none of them twice.
    """
    same: dict[tuple, list[Group]] = {}
    for group in groups:
        same.setdefault(group.label, []).append(group)
    variants = {
        id(group): text
        for alike in same.values()
        if len(alike) > 1
        for group, text in zip(alike, describe(alike), strict=True)
    }
    return [replace(group, variant=variants.get(id(group), "")) for group in groups]
