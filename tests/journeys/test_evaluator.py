"""The evaluator through the front door:
protocols, teachers, kinds of labels, tables of comparisons.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from ddoq.config.checks import check
from ddoq.errors import ConfigError, StageError
from ddoq.experiment import Experiment, Models
from support.runs import DECODED, TEACHER, artefacts, composed, run_here


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Path:
    """A run with every comparison that there is."""
    return run_here(
        *DECODED,
        *TEACHER,
        f"paths.outputs={tmp_path_factory.mktemp('compared')}",
        "compare=ranking",
        "compare.labels=[hard,soft,stored,fixed]",
        "+student@compare.students.small=convnet_d3_w32",
        "compare.students.small.width=4",
        "+teacher@compare.teachers.other=own",
        "+student@compare.teachers.other.student=convnet_d3_w32",
        "+protocol@compare.teachers.other.protocol=digits",
        "compare.teachers.other.protocol.num_steps=60",
        "measure.fidelity=true",
        "protocol.temperature=4",
        "protocol.augmentation.shift=1",
    )


def test_every_table_has_every_arm_and_every_seed(compared):
    found = rows(compared)
    arms = {"full", "random", "nearest", "d4m", "ddoq", "ddoq_uniform"}
    assert {row["arm"] for row in found if row["table"] == "main"} == arms
    # The full data for every student.
    assert {row["arm"] for row in found if row["table"] == "student"} == arms
    for table, values in {
        "labels": {"hard", "soft", "stored", "fixed"},
        "teacher": {"other"},
        "augmentation": {"full", "none"},
    }.items():
        mine = [row for row in found if row["table"] == table]
        assert {(r["arm"], r["value"], r["seed"]) for r in mine} == {
            (arm, value, seed) for arm in arms - {"full"} for value in values for seed in (0, 1)
        }
    assert {row["student"] for row in found if row["table"] == "student"} == {"convnet_d3_w32"}
    assert {row["teacher"] for row in found if row["labels"] == "hard"} == {None}
    assert {row["teacher"] for row in found if row["labels"] != "hard"} == {"own"}


def test_variations_that_are_none_are_not_trained_again(compared):
    """Hard labels are what the main table had;
    the same key says that no student was trained twice for it.
    """
    keys = {(r["table"], r["value"], r["arm"], r["seed"]): r["key"] for r in rows(compared)}
    assert keys["labels", "hard", "ddoq", 1] == keys["main", "", "ddoq", 1]
    assert keys["augmentation", "full", "ddoq", 1] == keys["main", "", "ddoq", 1]
    assert len({key for (table, *_), key in keys.items() if table == "labels"}) == 5 * 4 * 2


def test_labels_on_the_fly_and_stored_ones_are_of_the_size_that_was_announced(compared):
    store = compared.parents[1] / "store"
    folders = [path.parent for path in (store / "relabel").glob("*/manifest.json")]
    # Random is drawn for either seed; weights change no image, so ddoq and its twin share.
    assert len(folders) == 5
    views = [np.load(path) for path in sorted(folders[0].glob("view-*.npy"))]
    assert len(views) == 7 and all(
        view.shape == (100, 10) and view.dtype == np.float16 for view in views
    )
    facts = json.loads((folders[0] / "manifest.json").read_text())["facts"]
    assert facts["logit_bytes"] == 7 * 100 * 10 * 2
    soft = [load_file(path)["targets"] for path in (store / "label").glob("*/targets.safetensors")]
    assert all(
        one.shape == (100, 10) and one.sum(1).allclose(one.new_ones(100)) and one.max() < 1
        for one in soft
    )


def test_report_shows_the_tables_with_the_number_of_seeds(compared):
    page = (compared / "report.html").read_text()
    for table in (
        "pairings",
        "pivot-student",
        "pivot-teacher",
        "pivot-labels",
        "pivot-augmentation",
        "scores",
    ):
        assert f'id="{table}"' in page
    for table in ("per-class", "fidelity", "costs"):
        assert f'id="{table}"' in page
    assert "NaN" not in page and not re.search(r">nan\b", page)
    shown = page[page.index('id="scores"') :]
    assert all(f"LRS, {kind}" in shown for kind in ("hard", "soft", "stored", "fixed"))


def test_interrupted_relabelling_ends_with_the_same_files(tmp_path):
    run = (
        *DECODED,
        *TEACHER,
        f"paths.outputs={tmp_path}",
        "protocol.labels=stored",
        "baselines=none",
    )
    run_here(*run, "run.until=relabel")
    before = artefacts(tmp_path, "relabel")
    (manifest,) = (tmp_path / "store" / "relabel").glob("*/manifest.json")
    manifest.unlink()
    (manifest.parent / "view-00003.npy").unlink()
    kept = (manifest.parent / "view-00001.npy").stat().st_mtime_ns
    run_here(*run, "run.until=relabel")
    assert artefacts(tmp_path, "relabel") == before
    assert (manifest.parent / "view-00001.npy").stat().st_mtime_ns == kept


def test_teacher_that_knows_nothing_stops_the_run_before_any_student(tmp_path):
    with pytest.raises(StageError, match="chance"):
        run_here(
            *DECODED,
            *TEACHER,
            f"paths.outputs={tmp_path}",
            "protocol.labels=soft",
            "teacher.protocol.num_steps=1",
            "teacher.protocol.num_evaluations=1",
            "baselines=none",
        )
    assert not list((tmp_path / "store" / "evaluate").glob("*/manifest.json"))


@pytest.mark.parametrize("protocol", ["fkd1024", "rded", "rd3", "dc"])
def test_protocols_of_the_literature_walk_the_corridor(protocol, tmp_path):
    """Their augmentations, schedules, optimizers and kinds of labels,
    for one epoch on small grey images.
    """
    folder = run_here(
        *(override for override in DECODED if override != "protocol=smoke"),
        *TEACHER,
        f"protocol={protocol}",
        f"paths.outputs={tmp_path}",
        "baselines=none",
        "protocol.epochs=2",
        "protocol.num_seeds=1",
        "protocol.image_size=null",
        "protocol.normalization=dataset",
    )
    (row,) = (row for row in rows(folder) if row["arm"] == "ddoq")
    assert row["epochs"] == 2 and row["protocol"] == protocol
    assert row["batch_size"] == {"fkd1024": 100, "rded": 50, "rd3": 50, "dc": 100}[protocol]
    assert row["labels"] == ("hard" if protocol == "dc" else "soft")


@pytest.mark.slow
def test_published_teachers_of_cifar10(shared, tmp_path):
    """Teacher swap, and an ensemble, with real networks and real images."""
    folder = run_here(
        *(override for override in DECODED if not override.startswith("quantizer.")),
        "dataset=cifar10",
        "encoder=pixels",
        "generator=real",
        "quantizer=random",
        "weighting=uniform",
        "student=convnet_d3",
        "protocol=smoke",
        "student.width=8",
        "dataset.train_per_class=60",
        "compare=cifar10_teachers",
        "baselines=none",
        f"paths.data={shared}",
        f"paths.models={shared}",
        f"paths.outputs={tmp_path}",
    )
    teachers = {row["teacher"] for row in rows(folder) if row["table"] == "teacher"}
    assert teachers == {
        "cifar10_resnet20",
        "cifar10_resnet32",
        "cifar10_resnet56",
        "cifar10_resnets",
    }


@pytest.mark.parametrize(
    ("overrides", "cause"),
    [
        (["protocol.epochs=3"], "protocol.epochs: 3 with protocol.num_steps"),
        (["protocol.num_steps=null"], "protocol.epochs"),
        (["protocol.schedule_by=epoch"], "protocol.schedule_by"),
        (["protocol.labels=sotf"], "did you mean 'soft'"),
        (["protocol=rded"], "protocol.normalization"),
        (["protocol.augmentation.lighting=0.1"], "protocol.augmentation.lighting"),
        (["protocol.labels=stored", "protocol.weights.use=sampling"], "protocol.labels"),
        (
            ["teacher=cifar10_resnets", *(f"~teacher.members.resnet{n}" for n in (20, 32, 56))],
            "teacher.members",
        ),
        (["compare.labels=[hrad]"], "did you mean 'hard'"),
        (["protocol.weights.mixed=all"], "protocol.weights.mixed"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_the_configuration(overrides, cause):
    with pytest.raises(ConfigError) as caught:
        check(composed(*overrides))
    assert cause in f"{caught.value.cause} {caught.value.remedy}"


@pytest.mark.parametrize(
    ("overrides", "cause"),
    [
        (["compare.arms=[dqoq]"], "did you mean 'ddoq'"),
        (["protocol.augmentation.dsa=color_crob"], "did you mean 'crop'"),
        (["protocol.augmentation.cutmix=1", "protocol.augmentation.mixup=1"], "exclude each other"),
    ],
)
def test_the_rest_is_refused_before_anything_is_computed(overrides, cause, tmp_path):
    with pytest.raises(ConfigError) as caught:
        run_here(*DECODED, f"paths.outputs={tmp_path}", *overrides)
    assert cause in f"{caught.value.cause} {caught.value.remedy}"
    assert not list((tmp_path / "store").rglob("manifest.json"))


def test_without_augmentation_is_the_same_where_there_is_none():
    """Digits are not augmented: nothing has to be trained again
    for DD-Ranking's augmentation-robust score.
    """
    experiment = Experiment(composed("compare=ranking", "compare.labels=[]"), "data", Models([]))
    main = {entry.evaluate.key for entry in experiment.entries if entry.table == "main"}
    assert {
        entry.evaluate.key for entry in experiment.entries if entry.table == "augmentation"
    } < main
