"""In which order nodes are computed, and that many cores are kept busy by it."""

from __future__ import annotations

import random

import pytest

from ddoq.pipeline.graph import Node
from ddoq.pipeline.schedule import Waiting, duration_on, in_order, shares
from support.nodes import bare_node


def graph(num_seeds: int, arms: tuple[str, ...] = ("random", "d4m", "ddoq")) -> list[Node]:
    """Return the students of a run as their targets: those on the full data first, then every
    arm's, each with its own draw; images of the arms but ``random`` are made by a fitted model.
    """
    index = bare_node("index", {})
    encode = bare_node("encode", {}, {"index": index})
    model = bare_node("fit_generator", {}, {"encode": encode, "index": index})
    targets = [
        bare_node("evaluate", {"seed": n}, {"index": index}, "full") for n in range(num_seeds)
    ]
    for arm in arms:
        for seed in range(num_seeds):
            identity, made_by = (
                {"arm": arm, "seed": seed},
                {} if arm == "random" else {"model": model},
            )
            points = bare_node("quantize", identity, {"encode": encode}, arm)
            images = bare_node("generate", identity, {"quantize": points, **made_by}, arm)
            label = bare_node("label", identity, {"generate": images, "index": index}, arm)
            targets.append(bare_node("evaluate", identity, {"label": label, "index": index}, arm))
    return targets


def everything(targets: list[Node]) -> list[Node]:
    """Return all nodes behind the targets in order of preference."""
    keys: set[str] = set()

    def visit(node: Node) -> None:
        keys.add(node.key)
        for upstream in node.inputs.values():
            visit(upstream)

    for node in targets:
        visit(node)
    return in_order(targets, keys)


def test_what_many_wait_for_comes_first_and_then_arm_after_arm():
    order = everything(graph(2))
    assert [node.stage for node in order[:3]] == ["index", "encode", "fit_generator"]
    rows = [node.title for node in order if node.stage == "evaluate"]
    assert rows == ["full"] * 2 + ["random"] * 2 + ["d4m"] * 2 + ["ddoq"] * 2
    chain = [node.stage for node in order[5:9]]
    assert chain == ["quantize", "generate", "label", "evaluate"]


def test_a_node_is_ready_when_nothing_that_is_left_is_its_input():
    order = everything(graph(1))
    assert [node.stage for node in Waiting(order).ready()] == ["index"]
    able = Waiting(order[1:]).ready()
    assert [node.stage for node in able] == ["encode", "evaluate"]
    # While the model is fitted, students of the full data and random images go on.
    titles = [node.title for node in Waiting(order[2:]).ready()]
    assert titles == ["", "full", "random", "d4m", "ddoq"]


def test_nothing_of_a_later_stage_begins_while_models_are_untried():
    index = bare_node("index", {})
    probe, encode = (bare_node(stage, {}, {"index": index}) for stage in ("probe", "encode"))
    waiting = Waiting([index, encode, probe])
    for expected in (index, probe, encode):
        assert waiting.ready() == [expected]
        waiting.ended(expected)
    assert waiting.ready() == [] and not waiting.left


def test_what_is_there_already_is_in_nobodys_way():
    (student,) = graph(1, ())
    assert in_order([student], {student.key}) == [student] == Waiting([student]).ready()


@pytest.mark.parametrize(
    ("stages", "idle", "sizes"),
    [
        (["evaluate"], 4, [1]),
        (["encode"], 4, [4]),
        (["encode", "evaluate"], 4, [3, 1]),
        (["generate", "generate"], 5, [3, 2]),
        (["generate"] * 5, 3, [1, 1, 1]),
        ([], 3, []),
        (["encode"], 0, []),
    ],
)
def test_idle_processes_help_where_a_stage_shares_out_its_items(stages, idle, sizes):
    nodes = [bare_node(stage, {"n": n}) for n, stage in enumerate(stages)]
    assert [size for _, size in shares(nodes, idle)] == sizes


def durations(seed: int, fit: float) -> dict[str, float]:
    """Return what stages take, in seconds, as students of a small network do on a core."""
    draw = random.Random(seed)
    return {
        "index": 1.5,
        "encode": 1.0,
        "fit_generator": fit,
        "quantize": draw.uniform(0.5, 2.0),
        "generate": draw.uniform(0.5, 3.0),
        "label": 0.1,
        "evaluate": draw.uniform(3.0, 5.0),
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fit", [1.0, 10.0, 20.0])
def test_sixteen_cores_are_busy_while_the_model_is_fitted_and_after_it(seed, fit):
    """87 students or more; the fit is shorter than what can be done beside it."""
    order = everything(graph(29, ("random", "d4m", "ddoq")))
    took = {node.key: durations(hash((seed, n)), fit)[node.stage] for n, node in enumerate(order)}
    work = sum(took.values())
    time = duration_on(order, lambda node: took[node.key], 16)
    assert work / (16 * time) >= 0.85


@pytest.mark.parametrize("seed", range(5))
def test_a_long_fit_is_what_the_run_takes_and_little_more(seed):
    """Counter-example: it begins when everything else is done."""
    order = everything(graph(10))
    took = {node.key: durations(hash((seed, n)), 90)[node.stage] for n, node in enumerate(order)}
    time = duration_on(order, lambda node: took[node.key], 16)
    path = 1.5 + 1.0 + 90 + 3.0 + 0.1 + 5.0  # of inputs of inputs, at most
    behind = sum(took[node.key] for node in order if node.title in ("d4m", "ddoq"))
    assert time <= path + behind / 16
    late = sorted(order, key=lambda node: node.stage == "fit_generator")
    assert duration_on(late, lambda node: took[node.key], 16) > time


def test_one_process_takes_the_sum():
    order = everything(graph(2))
    assert duration_on(order, lambda node: 2.0, 1) == 2.0 * len(order)
