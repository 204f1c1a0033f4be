"""What an arm's next images would still tell a student of its first."""

from __future__ import annotations

import json

import pytest

from ddoq.data.distilled import load_distilled
from ddoq.engine.student import train_student
from ddoq.evaluation.protocol import Protocol
from ddoq.experiment import Experiment, Models
from ddoq.pipeline.graph import unique
from ddoq.stages.runtime import index_facts
from ddoq.stages.students import new_student
from support.runs import DECODED, composed, run_here

RUN = (
    *DECODED,
    *("baselines=random", "+arm@baselines.herding=herding", "ipc=3"),
    *("protocol.num_seeds=2", "protocol.num_steps=60", "measure.redundancy=true"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_here(*RUN, f"paths.outputs={tmp_path_factory.mktemp('outputs')}")


def test_a_number_per_arm_stands_in_rows_and_report(run):
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    told = {row["arm"]: row["redundancy"] for row in rows}
    assert set(told) >= {"random", "herding"} and all(0 < value <= 1 for value in told.values())
    assert told["herding"] > told["random"], "herding draws nothing: the same images again"
    assert "<h2>Redundancy of further images</h2>" in (run / "report.html").read_text()


def further_nodes(*overrides: str) -> list[str]:
    """Return the stages of what the diagnostic asks for besides."""
    keys: list[dict[str, str]] = []
    for switch in ("true", "false"):
        config = composed(*RUN, f"measure.redundancy={switch}", *overrides)
        nodes = unique(Experiment(config, "data", Models([])).targets("report"))
        keys.append({node.key: node.stage for node in nodes})
    with_it, without = keys
    assert without.keys() <= with_it.keys()
    return sorted(with_it[key] for key in with_it.keys() - without.keys())


def test_where_sets_are_redrawn_the_next_is_that_of_the_next_student():
    students = ["redundancy"] * 4  # random, herding, the main arm and its twin
    assert further_nodes("protocol.redraw=true") == students
    sets = ["generate"] * 2 + ["label"] * 3 + ["quantize"] * 2  # of herding, and of the main arm
    assert further_nodes("protocol.redraw=false") == sorted(sets + students)


def test_it_is_what_a_student_by_hand_reaches(run):
    store = run.parents[1] / "store"
    config = composed(*RUN)
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    first, following = (row for row in rows if row["arm"] == "random")
    data, test = (
        load_distilled(store / "label" / row["set_key"]).training_set()
        for row in (first, following)
    )
    recipe = Protocol.from_config(config["protocol"]).resolve(3, 10, config["student"]["name"])
    network, normalize = new_student(
        config["student"],
        index_facts(next((store / "index").glob("*/"))),
        recipe.normalization,
        data.images.shape[-1],
        0,
    )
    measured = train_student(network, data, (test.images, test.labels), recipe, normalize, 0, "cpu")
    assert measured["top1"] == first["redundancy"] == following["redundancy"]
