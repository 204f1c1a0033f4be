"""The tables of the study, as the README and tests/benchmarks/README.md show them, are those that the rows make."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPT = ROOT / "tests" / "benchmarks" / "study.py"


def printed(*arguments) -> str:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout


def test_documents_show_the_tables_that_the_rows_make():
    shown = (ROOT / "README.md").read_text() + (SCRIPT.parent / "README.md").read_text()
    tables = [table.strip() for table in printed().split("\n\n") if table.startswith("|")]
    assert len(tables) >= 5
    for table in tables:
        assert len(table.splitlines()) > 3 and table in shown, table


@pytest.mark.parametrize("file", sorted((SCRIPT.parent / "study").glob("*-*.csv")), ids=lambda file: file.stem)
def test_every_file_of_rows_can_be_printed(file):
    lines = printed(file).splitlines()
    assert len([line for line in lines if line.startswith("|")]) > 3
