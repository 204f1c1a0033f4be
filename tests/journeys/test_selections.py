"""A choice among several draws, from the command line to the report."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ddoq import load_distilled
from ddoq.data.image_set import TABLE, ImageSet
from ddoq.experiment import Experiment, Models
from ddoq.pipeline.graph import unique
from ddoq.stages.runtime import facts
from support.processes import kill_once
from support.runs import TEACHER, TINY, artefacts, composed, run_here

SMALL = (
    *TINY,
    *TEACHER,
    *("ablation=none", "ablation.strengths=[]", "baselines=none", "measure.curve=[]", "ipc=3"),
)
#: The main arm by S³, and one row for every other choice among the same draws.
CHOICES = ("confidence", "difficulty", "nearest", "kcenter")
ROWS = [
    word
    for choice in CHOICES
    for word in (
        f"+arm@baselines.{choice}=s3",
        f"selection@baselines.{choice}.selection={choice}",
        f"baselines.{choice}.selection.num_draws=3",
    )
]
#: Without a choice, and choices of one draw.
SAME = [
    *("+arm@baselines.plain=s3", "selection@baselines.plain.selection=none"),
    *("+arm@baselines.one_s3=s3", "baselines.one_s3.selection.num_draws=1"),
    *("+arm@baselines.one_kcenter=s3", "selection@baselines.one_kcenter.selection=kcenter"),
    "baselines.one_kcenter.selection.num_draws=1",
]
MAIN = (*SMALL, "selection=s3", "selection.num_draws=3", *ROWS, *SAME)


def rows_of(run: Path) -> dict[str, dict]:
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    return {row["arm"]: row for row in rows}


def nodes_of(*overrides: str) -> dict[str, list]:
    stages: dict[str, list] = {}
    experiment = Experiment(composed(*overrides), "data", Models([]))
    for node in unique(experiment.targets("report")):
        stages.setdefault(node.stage, []).append(node)
    return stages


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return run_here(*MAIN, f"paths.outputs={tmp_path_factory.mktemp('outputs')}")


def test_rows_say_what_chose_their_images(finished):
    rows = rows_of(finished)
    assert {name: row["select"] for name, row in rows.items()} == {
        **{choice: choice for choice in CHOICES},
        **{"plain": None, "one_s3": "s3", "one_kcenter": "kcenter"},
        "ddoq_s3": "s3",
        "ddoq_s3_uniform": "s3",
    }
    assert all(row["num_images"] == 30 for row in rows.values())
    assert "<h2>Choice among draws</h2>" in (finished / "report.html").read_text()


def test_all_choices_share_the_draws_and_the_first_is_the_one_of_before():
    plain, chosen = nodes_of(*SMALL), nodes_of(*MAIN)
    assert len(chosen["generate"]) == 3 and len(chosen["select"]) == 7
    keys = {node.key for node in chosen["generate"]}
    assert {node.key for node in plain["generate"]} < keys
    assert "select" not in plain


def test_files_are_those_of_the_draws_and_say_which(finished):
    store = finished.parents[1] / "store"
    for folder in (store / "select").glob("*/"):
        told = facts(folder)
        num_draws = len(told["of_draws"])
        table, images = pq.read_table(folder / TABLE).to_pydict(), ImageSet.load(folder)
        assert images.labels.bincount().tolist() == [3] * 10
        assert len(set(zip(table["draw"], table["label"], table["point"], strict=True))) == 30
        assert told["num_candidates"] == 30 * num_draws and sum(told["of_draws"]) == 30
        assert told["of_draws"] == np.bincount(table["draw"], minlength=num_draws).tolist()
        drawn = {file.read_bytes() for file in (store / "generate").glob("*/*/*.png")}
        assert all((folder / name).read_bytes() in drawn for name in images.names)


def test_masses_are_those_of_points_or_counted_anew(finished):
    store = finished.parents[1] / "store"
    quantized = facts(next((store / "quantize").glob("*/")))["per_class"]
    kinds = []
    for folder in (store / "select").glob("*/"):
        told, images = facts(folder), ImageSet.load(folder)
        per_class = [int(images.counts[images.labels == c].sum()) for c in range(10)]
        assert per_class == [row["num"] for row in quantized]
        kinds.append(told["masses"])
        course = told.get("objectives", [])
        assert course == sorted(course)
    assert kinds.count("points") == 3 and kinds.count("cells") == 4
    assert load_distilled(finished / "distilled").weights.std() > 0.01


def test_of_one_draw_the_set_is_that_without_a_choice(finished):
    sets: dict[str, list] = {}
    for name, content in artefacts(finished.parents[1], "label").items():
        _, _, key, *inside = Path(name).parts
        sets.setdefault(key, []).append(("/".join(inside), content))
    times = Counter(str(sorted(files)) for files in sets.values())
    # four choices, the main arm and its twin
    assert sorted(times.values()) == [1] * 6 + [3]


def test_killed_while_it_chooses_the_same_command_finishes_the_same(finished, tmp_path):
    outputs = finished.parents[1]
    later = ("select", "label", "evaluate")
    shutil.copytree(outputs / "store", tmp_path / "store", ignore=shutil.ignore_patterns(*later))
    kill_once("select/*/parts/*", *MAIN, outputs=tmp_path)
    run_here(*MAIN, f"paths.outputs={tmp_path}")
    assert artefacts(tmp_path, "select", "label") == artefacts(outputs, "select", "label")


def test_at_strength_0_all_draws_are_alike_and_nothing_is_chosen():
    stages = nodes_of(*MAIN, "ablation=standard", "ablation.strengths=[0,1]")
    generators = [
        node.inputs["generate"].identity["generator"]["name"] for node in stages["select"]
    ]
    assert set(generators) == {"dit"}
