"""D3HR from the command line: inversion, draws, images."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from ddoq import load_distilled
from ddoq.experiment import Experiment, Models
from ddoq.pipeline.graph import unique
from support.processes import kill_once
from support.runs import TINY, artefacts, composed, run_here

RUN = (
    *(override for override in TINY if not override.startswith("quantizer.")),
    *("quantizer=random", "weighting=uniform", "ipc=2", "generator.start=statistics"),
    *("generator.strength=0.5", "generator.num_sets=20", "baselines=none", "ablation=none"),
    *("ablation.strengths=[]", "measure.curve=[]", "measure.num_folds=0"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return run_here(*RUN, f"paths.outputs={tmp_path_factory.mktemp('outputs')}")


def test_statistics_of_every_class_are_kept_and_images_are_made_of_them(finished):
    store = finished.parents[1] / "store"
    (folder,) = (store / "invert").glob("*/")
    both = load_file(folder / "statistics.safetensors")
    assert both["mean"].shape == both["std"].shape == (10, 1, 8, 8)
    assert (both["std"] > 0).all() and not torch.equal(both["mean"][0], both["mean"][1])
    data = load_distilled(finished / "distilled")
    assert data.labels.bincount().tolist() == [2] * 10
    rows = [json.loads(line) for line in (finished / "results.jsonl").read_text().splitlines()]
    assert {row["arm"] for row in rows} == {"random_dit"}
    assert len(pq.read_table(data.path / "metadata.parquet")) == 20


def test_killed_while_it_inverts_the_same_command_finishes_the_same(finished, tmp_path):
    kill_once("invert/*/class-*", *RUN, outputs=tmp_path)
    assert not list((tmp_path / "store").glob("invert/*/manifest.json"))
    run_here(*RUN, f"paths.outputs={tmp_path}")
    stages = ("invert", "generate", "label")
    assert artefacts(tmp_path, *stages) == artefacts(finished.parents[1], *stages)


def stages_of(*overrides: str) -> dict[str, list]:
    stages: dict[str, list] = {}
    for node in unique(Experiment(composed(*overrides), "data", Models([])).targets("report")):
        stages.setdefault(node.stage, []).append(node)
    return stages


def test_inversions_are_shared_by_what_differs_in_sampling_alone():
    key = {node.key for node in stages_of(*RUN)["invert"]}
    for other in ("generator.num_sets=30", "generator.guidance_scale=2", "seed=0", "ipc=3"):
        assert {node.key for node in stages_of(*RUN, other)["invert"]} == key
    for other in ("generator.strength=0.75", "generator.inversion_scale=2"):
        assert {node.key for node in stages_of(*RUN, other)["invert"]} != key
    assert "invert" not in stages_of(*RUN, "generator.start=noised")


def test_it_is_an_arm_beside_others():
    stages = stages_of("baselines=none", "+arm@baselines.d3hr=d3hr_dit", "ablation=none")
    assert len(stages["invert"]) == 1
    assert stages["invert"][0].identity["generator"]["strength"] == 0.62
