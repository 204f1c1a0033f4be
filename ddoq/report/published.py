"""Published accuracies, beside ours only
where they were measured in the same way on the same images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ddoq.evaluation.statistics import Summary
from ddoq.report.groups import Group
from ddoq.report.tables import percent
from ddoq.report.view import View

FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Published:
    """One number of a paper.

    ``top1`` and ``std`` in percent; ``selection``: the epoch it reports.
    """

    method: str
    dataset: str
    protocol: str
    student: str
    teacher: str | None
    ipc: int
    top1: float
    std: float | None
    selection: str
    source: str


@cache
def _file() -> dict[str, Any]:
    return yaml.load(
        FILE.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    )


def published() -> list[Published]:
    """Return every number of the file."""
    known = _file()
    return [
        Published(
            *(row[name] for name in ("method", "dataset", "protocol", "student")),
            row.get("teacher"),
            ipc,
            top1,
            row.get("std", {}).get(ipc),
            known["protocols"][row["protocol"]]["selection"],
            known["sources"][row["source"]],
        )
        for row in known["rows"]
        for ipc, top1 in row["top1"].items()
    ]


def agrees(group: Group, number: Published) -> bool:
    """Tell whether our students were trained and measured as those of a published number.

    The protocol and the student are the shipped ones, with nothing changed but the number of seeds;
    the data have the same source and as many images. What an old row does not say does not agree.
    """
    data = _file()["datasets"][number.dataset]
    counts = [group["num_train"], group["num_validation"]]
    if None in counts or group["dataset_source"] is None or group["split"] != "test":
        return False
    return (
        all(
            group[name] == getattr(number, name)
            for name in ("dataset", "protocol", "student", "teacher", "ipc")
        )
        and group["recipe_key"]
        == _file()["protocols"][number.protocol]["recipes"].get(number.student)
        and group["dataset_source"].split(" (")[0] == data["provenance"]
        and group["image_size"] in data["image_sizes"]
        and data["train"] in (None, sum(counts))
        and group["num_test"] == data["test"]
        and not group["condition"]
    )


def beside(groups: Sequence[Group]) -> View | None:
    """Return our arms and the published methods that agree with them; ``None`` where none does."""
    blocks: dict[tuple, tuple[list[Group], list[Published]]] = {}
    numbers = published()
    for group in groups:
        found = [number for number in numbers if agrees(group, number)]
        if found:
            names = ("dataset", "protocol", "student", "ipc")
            blocks.setdefault(tuple(group[name] for name in names), ([], found))[0].append(group)
    rows = []
    for block, (ours, theirs) in blocks.items():
        setting = [str(value) for value in block]
        rows += [
            [*setting, f"{one.name} (ours)", *_ours(one, theirs[0].selection), _held_out(one)]
            for one in ours
        ]
        rows += [[*setting, one.method, _theirs(one), one.selection, one.source] for one in theirs]
    return (
        rows
        and View(
            "Published numbers under the same protocol",
            ["dataset", "protocol", "student", "ipc", "method", "top-1 %", "epoch", "source"],
            rows,
            num_left=5,
            bold=frozenset(number for number, row in enumerate(rows) if row[4].endswith(" (ours)")),
            note=(
                "Same data, split, student, teacher and recipe. "
                "Ours is of the epoch that the source reports: "
                "a best epoch is chosen on the test split, by them and by us."
            ),
        )
        or None
    )


def _ours(group: Group, selection: str) -> list[str]:
    summary: Summary | None = group.top1 if selection == "last" else group.summary("top1_best")
    return ["–" if summary is None else percent(summary), selection]


def _held_out(group: Group) -> str:
    held_out = group["num_validation"]
    return f"here, {group.top1.num} seeds" + (
        f", without {held_out:,} images for validation" if held_out else ""
    )


def _theirs(number: Published) -> str:
    return f"{number.top1:.1f}" + (f" ± {number.std:.1f}" if number.std is not None else "")
