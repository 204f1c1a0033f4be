"""A table on terminals of any width: what decides is always there, and whole."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ddoq.report.groups import groups_of
from ddoq.report.tables import accuracy_view, pivots
from ddoq.report.view import show, table_of
from support.report_rows import row


def printed(view, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    show(view, console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_accuracy_interval_and_seeds_are_whole_at_every_width(width):
    arm = "nearest_decode_teacher_by_error_weighted"
    rows = [row(0.9 + 0.01 * seed, seed=seed) | {"arm": arm} for seed in range(3)]
    rows += [row(0.1, "full", seed=seed, top5=0.5) for seed in range(3)]
    text = printed(accuracy_view(groups_of(rows), "test"), width)
    lines = text.splitlines()
    (own,) = (line for line in lines if line.startswith(arm))
    (full,) = (line for line in lines if line.startswith("full "))
    assert own.split()[1:7] == ["91.0", "±", "1.0", "[88.5,", "93.5]", "3"]
    assert full.split()[1:5] == ["10.0", "±", "–", "–"]
    assert all(len(line) <= width for line in lines)
    assert {"top-1 %", "95 % interval", "seeds"} <= set(filter(None, map(str.strip, heads(lines))))


def heads(lines: list[str]) -> list[str]:
    """Return the names of the columns: two spaces stand between them."""
    return next(line for line in lines if line.startswith("arm ")).split("  ")


def test_less_important_columns_go_first():
    view = accuracy_view(groups_of([row(0.5, top5=0.9)]), "test")
    wide, narrow = (
        {name.strip() for name in heads(printed(view, width).splitlines())} for width in (200, 60)
    )
    assert {"made of", "ECE %", "W2² own", "bytes"} <= wide
    assert not {"made of", "ECE %"} & narrow and {"top-1 %", "seeds"} <= narrow


def test_a_pivot_that_is_too_wide_goes_on_below_and_loses_nothing():
    rows = [row(0.01 * ipc, arm, ipc=ipc) for arm in ("d4m", "ddoq") for ipc in range(1, 21)]
    (view,) = pivots(groups_of(rows), "arm", "ipc")
    text = printed(view, 60)
    assert all(f"{ipc}.0 (1)" in text for ipc in range(1, 21))
    assert text.count("arm ") >= 3 and all(len(line) <= 60 for line in text.splitlines())


def test_names_are_never_broken_even_where_they_do_not_fit():
    name = "x" * 70
    text = printed(table_of([{"arm": name, "top-1 %": "50.0 ± 1.0"}], title="t"), 40)
    assert f"{name}  50.0 ± 1.0" in text
