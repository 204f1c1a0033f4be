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

from ddoq.report.formats import percent
from ddoq.report.groups import Group
from ddoq.report.view import View, table_of

FILE = Path(__file__).with_name("published.yaml")
_SETTING = ("dataset", "protocol", "student", "ipc")


@dataclass(frozen=True, kw_only=True)
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


@cache
def published() -> list[Published]:
    """Return every number of the file."""
    file = _file()
    return [
        Published(
            **{name: row[name] for name in ("method", "dataset", "protocol", "student")},
            teacher=row.get("teacher"),
            ipc=ipc,
            top1=top1,
            std=row.get("std", {}).get(ipc),
            selection=file["protocols"][row["protocol"]]["selection"],
            source=file["sources"][row["source"]],
        )
        for row in file["rows"]
        for ipc, top1 in row["top1"].items()
    ]


def agrees(group: Group, number: Published) -> bool:
    """Tell whether our students were trained and measured as those of a published number.

    The protocol and the student are the shipped ones, with nothing changed but the number of seeds;
    the data have the same source and as many images. What an old row does not say does not agree.
    """
    if any(group[name] != getattr(number, name) for name in (*_SETTING, "teacher")):
        return False
    data = _file()["datasets"][number.dataset]
    counts = [group.get("num_train"), group.get("num_validation")]
    source = group.get("dataset_source")
    if None in counts or source is None or group["split"] != "test":
        return False
    return (
        group.get("recipe_key")
        == _file()["protocols"][number.protocol]["recipes"].get(number.student)
        and source.split(" (")[0] == data["provenance"]
        and group.get("image_size") in data["image_sizes"]
        and data["train"] in (None, sum(counts))
        and group.get("num_test") == data["test"]
        and not group["condition"]
    )


def beside(groups: Sequence[Group]) -> View | None:
    """Return our arms and the published methods that agree with them; ``None`` where none does."""
    blocks: dict[tuple, tuple[list[Group], list[Published]]] = {}
    for group in groups:
        if theirs := [number for number in published() if agrees(group, number)]:
            setting = tuple(group[name] for name in _SETTING)
            blocks.setdefault(setting, ([], theirs))[0].append(group)
    rows = []
    for setting, (ours, theirs) in blocks.items():
        words = dict(zip(_SETTING, map(str, setting), strict=True))
        rows += [words | _our_cells(group, theirs[0].selection) for group in ours]
        rows += [words | _their_cells(number) for number in theirs]
    return table_of(
        rows,
        title="Published numbers under the same protocol",
        num_left=5,
        bold=frozenset(n for n, row in enumerate(rows) if row["method"].endswith(" (ours)")),
        note=(
            "Same data, split, student, teacher and recipe. "
            "Ours is of the epoch that the source reports: "
            "a best epoch is chosen on the test split, by them and by us."
        ),
    )


def _our_cells(group: Group, selection: str) -> dict[str, str]:
    held_out = group["num_validation"]
    without = f", without {held_out:,} images for validation" if held_out else ""
    return {
        "method": f"{group['name']} (ours)",
        "top-1 %": percent(group["accuracy" if selection == "last" else "best_epoch"]),
        "epoch": selection,
        "source": f"here, {group['accuracy'].num} seeds{without}",
    }


def _their_cells(number: Published) -> dict[str, str]:
    spread = f" ± {number.std:.1f}" if number.std is not None else ""
    return {
        "method": number.method,
        "top-1 %": f"{number.top1:.1f}{spread}",
        "epoch": number.selection,
        "source": number.source,
    }
