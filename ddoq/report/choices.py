"""The best arm of every setting, and what it was chosen on."""

from __future__ import annotations

from collections.abc import Sequence

from ddoq.errors import DataError
from ddoq.report.gather import Selection
from ddoq.report.groups import Group, distinct
from ddoq.report.summary import SETTING, varying
from ddoq.report.sweep_table import grouped, warn
from ddoq.report.tables import interval, percent
from ddoq.report.view import View, show
from ddoq.utils.console import console

_ON_TEST = "test: no basis for a choice"


def print_best(selection: Selection) -> None:
    """Print the best arm of every setting of a selection."""
    warn(selection.warnings)
    show(best(distinct(grouped(selection))), console)


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
        if group["ipc"] is not None and group["table"] != "augmentation":
            names = (*SETTING, "ipc", "dataset_key", "recipe_key")
            settings.setdefault(tuple(group[name] for name in names), []).append(group)
    if not settings:
        raise DataError(
            "report: there is nothing to choose from",
            "name runs with arms other than the full data",
        )
    chosen = [_choose(candidates) for candidates in settings.values()]
    columns = [
        "dataset",
        "protocol",
        *varying([one for one, _ in chosen], ("labels", "teacher")),
        "student",
        "ipc",
    ]
    return View(
        "Best arm",
        [
            *columns,
            "best",
            "chosen on",
            "of",
            "top-1 %",
            "95 % interval",
            "seeds",
            "ahead by",
            "top-1 on test %",
        ],
        [
            [*("–" if one[name] is None else str(one[name]) for name in columns), *cells]
            for one, cells in sorted(
                chosen, key=lambda pair: tuple(str(pair[0][name]) for name in columns[:-1])
            )
        ],
        num_left=len(columns) + 2,
        note=(
            "The best of several looks better than it is: choose on validation, report test. "
            "Ahead by: points of top-1 over the next best. "
            "On test: the arm that was made in the same way, where there is one (seeds)."
        ),
    )


def _choose(groups: Sequence[Group]) -> tuple[Group, list[str]]:
    """Return the best group of a setting, and the cells that say so."""
    on_test = [group for group in groups if group["split"] == "test"]
    candidates = [group for group in groups if group["split"] == "validation"] or on_test
    first, *others = sorted(candidates, key=lambda group: -group.top1.mean)
    validated = first["split"] == "validation"
    lead = 100 * (first.top1.mean - others[0].top1.mean) if others else None
    ahead = "–" if lead is None else "a tie" if lead < 1e-9 else f"{lead:.1f}"
    made = (
        [one for one in on_test if one["arm_key"] == first["arm_key"] is not None]
        if validated
        else []
    )
    return first, [
        f"{first.name} {first['condition']}".strip(),
        "validation" if validated else _ON_TEST,
        str(len(candidates)),
        percent(first.top1),
        interval(first.top1),
        str(first.top1.num),
        ahead,
        f"{percent(made[0].top1)} ({made[0].top1.num})" if made else "–",
    ]
