"""The best arm of every setting: chosen on validation, where there is any."""

from __future__ import annotations

from collections.abc import Sequence

from ddoq.errors import DataError
from ddoq.report.formats import DASH, percent
from ddoq.report.groups import SETTING, Group
from ddoq.report.tables import ALWAYS, accuracy_cells, arm_table
from ddoq.report.view import View

_ON_TEST = "test: no basis for a choice"

#: Tables of comparisons that nobody would run for their own sake.
_NOT_CHOSEN = ("augmentation", "pixels")


def best(groups: Sequence[Group]) -> View:
    """Return the best arm for every data set, protocol, labels, teacher,
    student and number of images per class.

    Where students were measured on the validation split, only they are candidates.
    The full data are none.

    Raises:
        DataError: there are no candidates.
    """
    settings: dict[tuple, list[Group]] = {}
    for group in groups:
        if group["ipc"] is not None and group["table"] not in _NOT_CHOSEN:
            names = (*SETTING, "ipc", "dataset_key", "recipe_key")
            settings.setdefault(tuple(group.get(name) for name in names), []).append(group)
    if not settings:
        raise DataError(
            "report: there is nothing to choose from",
            "name runs with arms other than the full data",
        )
    chosen = sorted(map(_choose, settings.values()), key=lambda pair: _setting_order(pair[0]))
    cells = {id(group): own for group, own in chosen}
    return arm_table(
        "Best arm",
        [group for group, _ in chosen],
        lambda group: cells[id(group)],
        spare=("of", "top-1 on test %"),
        note=(
            "The best of several looks better than it is: choose on validation, report test. "
            "Ahead by: points of top-1 over the next best. "
            "On test: the arm that was made in the same way, where there is one (seeds)."
        ),
    )


def _setting_order(group: Group) -> tuple:
    return tuple(str(group[name]) for name in SETTING) + (group["ipc"],)


def _choose(groups: Sequence[Group]) -> tuple[Group, dict[str, str]]:
    """Return the best group of a setting, and the cells that say so."""
    on_test = [group for group in groups if group["split"] == "test"]
    candidates = [group for group in groups if group["split"] == "validation"] or on_test
    first, *others = sorted(candidates, key=lambda group: -group["accuracy"].mean)
    is_validated = first["split"] == "validation"
    made = first.get("arm_key") if is_validated else None
    alike = [group for group in on_test if made and group.get("arm_key") == made]
    return first, {
        **{name: accuracy_cells(first)[name] for name in ALWAYS},
        "chosen on": "validation" if is_validated else _ON_TEST,
        "of": str(len(candidates)),
        "ahead by": _in_points(first, others[0]) if others else DASH,
        "top-1 on test %": f"{percent(alike[0]['accuracy'])} ({alike[0]['accuracy'].num})"
        if alike
        else DASH,
    }


def _in_points(best: Group, second: Group) -> str:
    lead = 100 * (best["accuracy"].mean - second["accuracy"].mean)
    return "a tie" if lead < 1e-9 else f"{lead:.1f}"
