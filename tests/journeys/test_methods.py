"""A method as an arm, from the command line to the report:
a row beside others, and the main arm.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.functional import interpolate

from ddoq import load_distilled
from ddoq.data.floats import read_floats
from ddoq.data.image_set import ImageSet
from ddoq.distillers import DM as DistillerDM
from ddoq.errors import ConfigError
from ddoq.experiment import Experiment, Models
from ddoq.job import prepare
from ddoq.pipeline.graph import unique
from ddoq.pipeline.stages import reaches
from ddoq.quantizers import ClassCodebooks
from ddoq.report.formats import num_bytes
from ddoq.stages.files import PER_IMAGE
from ddoq.stages.models import load_teacher
from ddoq.stages.runtime import Runtime
from ddoq.sweeps.waves import waves
from support.processes import kill_once
from support.runs import TEACHER, TINY, artefacts, composed, run_here

DM = (*TINY, "method=dm", "method.num_steps=40", "method.batch_size=32", "ipc=3", "ablation=none")
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
#: As a main arm beside random real images, and as a row beside DDOQ.
MAIN = (*DM, "baselines=random")
ROW = (
    *TINY,
    "+arm@baselines.dm=dm",
    "baselines.dm.method.num_steps=40",
    "baselines.dm.method.batch_size=32",
    "ipc=3",
    "ablation=none",
)


def rows_of(run: Path) -> dict[str, list[dict]]:
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    return {
        arm: [row for row in rows if row["arm"] == arm]
        for arm in dict.fromkeys(row["arm"] for row in rows)
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The run's folder of DM as the main arm."""
    return run_here(*MAIN, f"paths.outputs={tmp_path_factory.mktemp('outputs')}")


def test_rows_say_what_made_the_images(finished):
    rows = rows_of(finished)
    assert list(rows) == ["random", "dm"]  # no twin: the images have no masses
    for row in rows["dm"]:
        assert row["method"] == "dm" and row["num_images"] == 30
        assert all(
            row[name] is None
            for name in ("quantizer", "generator", "strength", "space", "w2_squared")
        )
        assert row["distil_seconds"] >= row["image_seconds"] > 0
    assert all(row["method"] is None and row["quantizer"] == "random" for row in rows["random"])


def test_page_shows_images_losses_and_cost(finished):
    page = (finished / "report.html").read_text()
    (section,) = re.findall(r"<h2>Optimisation</h2>(.*?)</section>", page, re.DOTALL)
    assert re.findall(r"<b>(.*?)</b>", section) == ["dm, start", "dm, end"]
    pictures = [re.findall(r"base64,(.*?)\"", part) for part in section.split("<b>")[1:]]
    assert [len(own) for own in pictures] == [10, 10]
    assert all(before != after for before, after in zip(*pictures, strict=True))
    assert re.search(
        r'<table id="optimisation">.*<td>40</td>.*<td>estimate</td>', section, re.DOTALL
    )
    assert re.search(r"<td[^>]*>distill</td>", page)
    assert 'id="classes"' not in page  # of the main arm's codebook, which it has not
    (costs,) = re.findall(r'<table id="costs">(.*?)</table>', page, re.DOTALL)
    head, *_, own = costs.split("<tr")[1:]  # the method's line is the last
    names, line = (re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in (head, own))
    images = dict(zip(names, line, strict=True))["images"]
    files = [
        file
        for file in (finished / "distilled").resolve().rglob("*")
        if file.suffix in (".png", ".safetensors")
    ]
    assert images == num_bytes(sum(file.stat().st_size for file in files))


def test_images_are_real_ones_that_were_changed_and_weigh_alike(finished):
    data = load_distilled(finished / "distilled")
    assert data.labels.bincount().tolist() == [3] * 10
    assert np.allclose(data.weights, 1)
    assert (data.path / "images.safetensors").is_file()
    table = pq.read_table(data.path / "metadata.parquet").to_pandas()
    assert (table["source"] >= 0).all() and (table["count"] == 1).all()


def test_masses_are_weights_only_where_they_are_asked_for(tmp_path):
    run = run_here(*MAIN, "method.masses=true", "run.until=report", f"paths.outputs={tmp_path}")
    weights = load_distilled(run / "distilled").weights
    assert weights.std() > 0.05 and weights.mean().item() == pytest.approx(1, abs=1e-5)


def test_row_beside_the_main_arm_is_the_set_of_the_same_method(finished, tmp_path):
    """A method's key is of what it is and is given, not of where it stands in the configuration."""
    row = Experiment(composed(*ROW), "data", Models([]))
    main = Experiment(composed(*MAIN), "data", Models([]))
    sets = [
        {node.key for node in unique(experiment.targets("report")) if node.stage == "distill"}
        for experiment in (row, main)
    ]
    assert sets[0] == sets[1] != set()
    assert list(row.arms()) == ["full", "random", "nearest", "d4m", "dm", "ddoq_uniform", "ddoq"]


def test_rules_do_not_change_the_key_and_what_is_typed_does():
    def key(*overrides: str) -> str:
        experiment = Experiment(composed(*TINY, "method=dm", *overrides), "data", Models([]))
        (first, *_) = (entry for entry in experiment.entries if entry.arm == "dm")
        return first.images.key

    by_rule = key()
    assert key("method.num_steps=300") == by_rule  # the value that the rule for digits gives
    assert key("method.num_steps=301") != by_rule
    later = (
        "method.rules=["
        "{datasets:[digits],num_steps:300,learning_rate:10},{num_steps:7,learning_rate:1}]"
    )
    dsa = "method.dsa=color_crop_cutout_scale_rotate"
    assert key(later, dsa) == by_rule  # another list of rules that comes to the same


@pytest.mark.parametrize("delay", [0.0, 0.7])
def test_killed_while_images_are_optimised_the_same_command_finishes_the_same(
    finished, tmp_path, delay
):
    kill_once("distill/*/last.ckpt", *MAIN, outputs=tmp_path, delay=delay)
    again = run_here(*MAIN, f"paths.outputs={tmp_path}")
    assert artefacts(tmp_path, "distill", "label") == artefacts(
        finished.parents[1], "distill", "label"
    )
    assert [row["top1"] for row in rows_of(again)["dm"]] == [
        row["top1"] for row in rows_of(finished)["dm"]
    ]


def test_second_run_computes_nothing(finished):
    job = prepare(composed(*MAIN, f"paths.outputs={finished.parents[1]}"))
    assert not job.missing


def test_method_alone_needs_no_latents_and_no_encoder():
    config = composed(*DM, "baselines=none", "encoder=sd_vae_ema", "measure.curve=[2]")
    stages = {
        node.stage for node in unique(Experiment(config, "data", Models([])).targets("report"))
    }
    assert stages == {"index", "audit", "distill", "label", "evaluate"}


def test_images_are_optimised_in_the_wave_that_has_the_gpus():
    resources = {
        name: {"gpus_per_node": int(name == "generate")}
        for name in ("encode", "curve", "generate", "report")
    }
    images, students = waves({"waves": ["generate"], "resources": resources}, "report")
    assert reaches(images.until, "distill") and images.resources == {"gpus_per_node": 1}
    assert students.resources == {"gpus_per_node": 0}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("method=dm", "allocation=error"), "allocation=equal"),
        (("method=dm", "method.num_steps=-1"), "method.num_steps"),
        (("method=m3d", "method.adaptive=0.2"), "set method.adaptive=0, or take dm"),
        (("method=dm", "method.rules=[]"), "method.num_steps"),
        (("+arm@baselines.dm=dm", "baselines.dm.method.start=nois"), "'noise'"),
        (("method=dm", "method.rules=[{dataset:[digits]}]"), "'datasets'"),
    ],
)
def test_what_a_method_cannot_be_is_refused_with_its_key(tmp_path, overrides, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        prepare(composed(*TINY, *overrides, f"paths.outputs={tmp_path}"))


def test_a_set_of_parts_and_a_set_without_steps_reach_the_table_as_floats_and_as_pngs(tmp_path):
    rows = ("+arm@baselines.bilp_real=bilp_real", "method.partition=2", "compare.pixels=true")
    run = run_here(*MAIN, *rows, f"paths.outputs={tmp_path}")
    seen = rows_of(run)
    for name, own in seen.items():
        students = {}
        for row in own:
            students.setdefault((row["table"], row["value"]), []).append(row["key"])
        if name == "random":
            assert students.keys() == {("main", "")}
            continue
        assert students["main", ""] == students["pixels", "floats"]
        assert not {*students["main", ""]} & {*students["pixels", "pngs"]}
    assert "its PNGs, rounded and clipped" in (run / "report.html").read_text()
    assert all(row["num_images"] == 120 and row["num_stored"] == 30 for row in seen["dm"])
    assert all(row["num_images"] == 30 == row["num_stored"] for row in seen["bilp_real"])
    assert "120 in 30" in (run / "report.html").read_text()
    data = load_distilled(run / "distilled")
    assert len(data) == 30 and data.partition == 2


def test_a_teacher_labels_and_judges_what_students_see_of_images_that_hold_four(tmp_path):
    """Bug: it looks at the stored images, or the labels of their parts change places."""
    labels = ("protocol.labels=fixed", "compare.labels=[soft,stored]", "measure.fidelity=true")
    asked = (*MAIN, *TEACHER, *labels, "method.partition=2", f"paths.outputs={tmp_path}")
    run, job = run_here(*asked), prepare(composed(*asked))
    rows = rows_of(run)["dm"]
    assert {row["labels"] for row in rows} == {"fixed", "soft", "stored"}
    assert all(row["num_images"] == 120 and row["num_stored"] == 30 for row in rows)

    node = next(e.label for e in job.experiment.entries if e.arm == "dm" and e.table == "main")
    folders = {name: job.store.path(upstream) for name, upstream in node.inputs.items()}
    runtime = Runtime(dataset=job.dataset, models=job.models, accelerator="cpu")
    teacher = load_teacher(node.inputs["teacher"], folders, runtime)
    stored = read_floats(folders["distill"], 30)
    seen = torch.cat([stored[..., 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] for i, j in CORNERS])
    seen = interpolate(seen, (8, 8), mode="bilinear").unflatten(0, (4, 30)).transpose(0, 1)
    expected = teacher(seen.flatten(0, 1))
    training = load_distilled(run / "distilled").training_set()
    assert torch.allclose(training.targets, expected.softmax(1), atol=1e-5)
    assert not torch.allclose(training.targets[::4], teacher(stored).softmax(1), atol=1e-2)

    judged = pq.read_table(job.store.path(job.experiment.fidelity["dm"]) / PER_IMAGE).to_pandas()
    assert judged["label"].tolist() == training.labels.tolist()
    assert judged["correct"].tolist() == (expected.argmax(1) == training.labels).tolist()


def test_a_method_starts_from_the_decoded_codebook_of_the_run(tmp_path):
    start = ("method.start=codebook", "method.num_steps=0", "quantizer=nearest")
    run = run_here(*MAIN, *start, f"paths.outputs={tmp_path}")
    folder = next((tmp_path / "store" / "distill").glob("*/images.parquet")).parent
    images = ImageSet.load(folder).pixels()
    points = next(
        points
        for file in (tmp_path / "store" / "quantize").glob("*/codebook.safetensors")
        if (points := ClassCodebooks.load(file)).latents.shape[0] == 30
        and np.allclose((points.latents.numpy() + 1) / 2, images.numpy(), atol=1e-4)
    )
    assert torch.equal(points.labels, ImageSet.load(folder).labels)
    assert rows_of(run)["dm"][0]["quantizer"] is None
    with pytest.raises(ConfigError, match="partition"):
        DistillerDM(num_steps=1, learning_rate=1.0, dsa="", start="codebook", partition=2)
