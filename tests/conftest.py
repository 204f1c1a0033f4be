"""Shared fixtures. Everything runs on real classes; what needs the shared data folder says so."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from support.runs import SHARED

#: Files whose tests take longest. Where files are shared out among processes, these go first,
#: so that no process is left with one of them in the end.
LONGEST = (
    "test_end_to_end",
    "test_sweeps",
    "test_orders",
    "test_imagenet",
    "test_kills",
    "test_golden",
    "test_evaluator",
    "test_compatible",
    "test_methods",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, in the order of ``LONGEST``."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONGEST)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep reports to text that can be sent between processes: a value of a fuzz test that is no
    UTF-8 would end the session, and nobody would see which test it was.
    """
    report = yield
    report.sections = [(title, _printable(text)) for title, text in report.sections]
    why = str(report.longrepr)
    if why != _printable(why):
        report.longrepr = _printable(why)
    return report


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


@pytest.fixture
def shared() -> Path:
    """The folder of real data sets; absent on a user's machine."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real data sets in {SHARED}")
    return SHARED
