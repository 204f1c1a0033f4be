"""The tables of the study, as the README and tests/benchmarks/README.md show them,
are those that the rows make.
"""

from __future__ import annotations

import importlib.util

import pytest

from support.runs import ROOT

BENCHMARKS = ROOT / "tests" / "benchmarks"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("study", BENCHMARKS / "study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_documents_show_the_tables_that_the_rows_make(study):
    for title, make in study.TABLES.items():
        table = make()
        for folder in (BENCHMARKS, *([ROOT] if title == "headline" else [])):
            shown = (folder / "README.md").read_text()
            assert len(table.splitlines()) > 3 and table in shown, (
                f"{title}: python tests/benchmarks/study.py prints another than {folder}/README.md"
            )


def test_every_file_of_rows_can_be_printed(study):
    files = sorted(study.ROWS.glob("*-*.csv"))
    assert len(files) > 10
    for file in files:
        rows = study.read(file)
        assert rows and study.details(rows).count("\n") == len(rows) + 1, file


def test_a_pair_is_made_of_the_same_seeds_and_what_differs_in_weights_only(study):
    shared = dict.fromkeys((*study.SAME, *study.TWIN), "same") | {"variant": ""}
    equal = shared | {
        "arm": "ddoq_uniform",
        "weighting": "uniform",
        "top1": {"0": 70.0, "1": 71.0, "2": 75.0},
    }
    mass = shared | {"arm": "ddoq", "weighting": "mass", "top1": {"0": 71.0, "1": 72.0, "3": 10.0}}
    other = equal | {"arm": "decode", "generator": "decode"}
    assert study.baselines(mass, [other, equal, mass]) == [None, None, equal]
    assert study.difference(mass, equal).startswith("+1.0 ± 0.0")  # seeds 0 and 1, not 2 and 3
