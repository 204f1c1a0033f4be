"""Sweeps: checked as a whole, nothing computed twice, killed and repeated,
one failure does not stop the others.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections import Counter
from pathlib import Path
from statistics import fmean

import pytest
import yaml

from ddoq.config.names import run_name
from ddoq.errors import ConfigError
from ddoq.job import prepare
from ddoq.pipeline.estimate import expected
from ddoq.pipeline.store import Store
from ddoq.sweeps.points import SweepPoint, expand
from ddoq.sweeps.waves import Wave, check_resources, jobs_of, waves
from support.nodes import bare_node
from support.processes import ddoq, new_python, start
from support.runs import TINY, composed, run_here

SMALL = (*TINY, "ablation=none", "measure.curve=[]", "baselines=none")


def points(outputs: Path, *lists: tuple[str, ...]) -> list[SweepPoint]:
    return expand(lists, lambda overrides: composed(*SMALL, f"paths.outputs={outputs}", *overrides))


def ledger(outputs: Path) -> Counter:
    return Counter(
        json.loads(line)["key"]
        for line in (outputs / "store/ledger.jsonl").read_text().splitlines()
    )


# --- before anything starts -------------------------------------------------------------------


def test_every_bad_point_is_named_and_nothing_starts(tmp_path):
    done = ddoq("-m", "ipc=1,2,5,10", "seed=0,-1", f"paths.outputs={tmp_path}")
    assert done.returncode == 1
    cause, remedy = done.stderr.strip().splitlines()
    assert (
        "point 2 of 8: ipc=1 seed=-1" in cause
        and "and 1 more" in cause
        and "nothing was started" in remedy
    )
    assert not (tmp_path / "store").exists() and not (tmp_path / "sweeps").exists()


@pytest.mark.parametrize("launcher", ["launcher=slurm", "launcher=joblib", "-m"])
def test_mistakes_of_a_sweep_are_not_blamed_on_its_commas(launcher, tmp_path):
    done = ddoq(launcher, "ipc=1,2", "quantizer.num_restart=3", f"paths.outputs={tmp_path}")
    assert (
        done.returncode == 1
        and "'quantizer.num_restarts'" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_plan_shows_every_point_and_computes_nothing(tmp_path):
    done = ddoq(
        "launcher=slurm",
        "ipc=1,2",
        "weighting=mass,uniform",
        "run.plan_only=true",
        f"paths.outputs={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ +ipc +weighting ", done.stdout, re.MULTILINE), "a column per swept key"
    assert re.search(r"^4 +2 +uniform .*never timed", done.stdout, re.MULTILINE)
    assert "wave up to curve      gpus_per_node=0" in done.stdout
    assert done.stdout.count("data: scikit-learn digits, 10 classes") == 1, (
        "what the data were taken for, once"
    )
    assert not (tmp_path / "store").exists()


def test_points_that_are_the_same_run_are_one(tmp_path):
    found = points(
        tmp_path, ("ipc=1", "trainer.batch_size=8"), ("ipc=1", "trainer.batch_size=64"), ("ipc=2",)
    )
    assert [str(point) for point in found] == ["ipc=1 trainer.batch_size=8", "ipc=2"]


def test_expected_time_is_of_the_same_data_only(tmp_path):
    store = Store(tmp_path)
    ours, other = bare_node("index", {"files": "a"}), bare_node("index", {"files": "b"})
    for seconds, seed in ((0.0, 0), (0.2, 1), (0.0, 2)):
        store.ensure(
            bare_node("evaluate", {"seed": seed}, {"index": ours}, "d4m"),
            lambda _, s=seconds: time.sleep(s) or {},
        )
    new = [bare_node("evaluate", {"seed": seed}, {"index": ours}, "ddoq") for seed in range(10)]
    estimate = expected([*new, *new], store)
    assert (
        estimate.counts == {"evaluate": 10} and estimate.seconds < 1 and estimate.num_unknown == 0
    )
    unknown = expected([bare_node("evaluate", {}, {"index": other}, "d4m")], store)
    assert unknown.num_unknown == 1 and unknown.time() == "1 never timed"


# --- waves ------------------------------------------------------------------------------------


def conf(stops: list[str], **resources) -> dict:
    known = composed("launcher=slurm")["sweep"]["resources"]
    return {
        "waves": stops,
        "resources": {stage: known[stage] | resources.get(stage, {}) for stage in known},
    }


def test_waves_follow_the_corridor_each_with_its_resources():
    found = waves(conf(["generate", "encode", "curve"], encode={"nodes": 2}), "report")
    assert [wave.until for wave in found] == ["encode", "curve", "generate", "report"]
    assert [dict(wave.resources) for wave in found] == [{"nodes": 2}, {"gpus_per_node": 0}, {}, {}]
    assert [wave.until for wave in waves(conf(["encode", "generate"]), "quantize")] == [
        "encode",
        "quantize",
    ]
    # As codebooks are in full sweeps.
    assert waves(conf(["encode"]), "quantize")[-1].resources == {"gpus_per_node": 0}
    assert waves(conf([], report={"nodes": 2}), "report") == [Wave("report", {})]


def test_what_points_share_is_given_to_one_of_them(tmp_path):
    found = points(
        tmp_path,
        *(((f"ipc={ipc}", f"weighting={name}")) for ipc in (1, 2) for name in ("mass", "uniform")),
    )
    assert [str(point) for point in jobs_of(Wave("encode", {}), found)] == ["ipc=1 weighting=mass"]
    assert [str(p) for p in jobs_of(Wave("quantize", {}), found)] == [
        "ipc=1 weighting=mass",
        "ipc=2 weighting=mass",
    ]
    assert jobs_of(Wave("report", {}), found) == found


@pytest.mark.parametrize(
    ("resources", "said"),
    [({"gpus_per_node": 4}, "3 of 4 would idle"), ({"timeout_min": 2}, "2 minutes are over")],
)
def test_resources_that_cannot_be_used_are_refused(resources, said):
    launcher = {"timeout_min": 240, "signal_delay_s": 120, "gpus_per_node": 1, "tasks_per_node": 1}
    check_resources(launcher, Wave("report", {}))
    with pytest.raises(ConfigError, match=said):
        check_resources(launcher, Wave("report", resources))


# --- running ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """The outputs of a sweep of four points, two at a time."""
    outputs = tmp_path_factory.mktemp("swept")
    done = new_python(
        "launcher=joblib", *SMALL, "ipc=1,2", "weighting=mass,uniform", f"paths.outputs={outputs}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return outputs


def test_points_at_the_same_time_compute_nothing_twice(swept):
    assert set(ledger(swept).values()) == {1}
    assert len(list(swept.glob("runs/*/report.html"))) == 4


def test_a_sweep_leaves_its_record_page_and_table(swept):
    [folder] = (swept / "sweeps").iterdir()
    record = json.loads((folder / "sweep.json").read_text())
    assert {point["run"] for point in record["points"]} == {
        run.name for run in swept.glob("runs/digits-*")
    }
    assert ["ipc=1", "weighting=mass"] in [point["overrides"] for point in record["points"]]
    assert 'http-equiv="refresh"' not in (folder / "live.html").read_text()
    assert (folder / "table.csv").read_text().count("\n") > 4


def test_the_same_sweep_again_starts_nothing(swept):
    """A report that is gone is written again; nothing else is touched."""
    [lost, *kept] = sorted(swept.glob("runs/digits-*/report.html"))
    lost.unlink()
    before, changed = ledger(swept), [path.stat().st_mtime_ns for path in kept]
    done = ddoq("-m", *SMALL, "ipc=1,2", "weighting=mass,uniform", f"paths.outputs={swept}")
    assert done.returncode == 0 and done.stdout.count("in the store") == 5, (
        done.stdout + done.stderr
    )
    assert lost.exists() and ledger(swept) == before
    assert [path.stat().st_mtime_ns for path in kept] == changed


def test_from_a_stage_on_is_computed_again_once(swept):
    before = ledger(swept)
    done = ddoq(
        "-m",
        *SMALL,
        "ipc=1",
        "weighting=mass,uniform",
        "run.from=evaluate",
        f"paths.outputs={swept}",
    )
    assert done.returncode == 0, done.stderr
    again = ledger(swept) - before
    assert again and set(again.values()) == {1} and len(again) == len(ledger(swept) - before)


def test_one_failure_does_not_stop_the_others(tmp_path):
    """A teacher that is never told apart from chance fails one point;
    the error names it, the other is finished.
    """
    hopeless = ("teacher.protocol.num_steps=1", "+student@teacher.student=convnet_d3_w32")
    overrides = ("+protocol@teacher.protocol=smoke", *hopeless, "protocol.labels=fixed,hard")
    done = ddoq("-m", *SMALL, "ipc=1", *overrides, f"paths.outputs={tmp_path}")
    assert done.returncode == 1
    assert "1 of 2 points failed" in done.stderr and "protocol.labels=fixed" in done.stderr
    config = composed(
        *SMALL, "ipc=1", *overrides[:-1], "protocol.labels=hard", f"paths.outputs={tmp_path}"
    )
    assert (tmp_path / "runs" / run_name(config) / "report.html").exists()


def test_sigterm_stops_a_run_where_it_can_go_on(tmp_path):
    run = start(*SMALL, "protocol.num_steps=100000", f"paths.outputs={tmp_path}", folder=tmp_path)
    end = time.monotonic() + 120
    while not list(tmp_path.glob("store/evaluate/*")) and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1)
    run.terminate()
    run.join(60)
    assert run.exitcode == 128 + signal.SIGTERM
    assert (
        tmp_path / "stderr"
    ).read_text() == "ddoq: stopped by SIGTERM; the same command resumes\n"
    [status] = tmp_path.glob("runs/*/status.json")
    assert json.loads(status.read_text())["state"] == "interrupted"
    job = prepare(composed(*SMALL, "protocol.num_steps=100000", f"paths.outputs={tmp_path}"))
    finished = {path.parent.name for path in tmp_path.glob("store/*/*/manifest.json")}
    assert not finished & {node.key for node in job.missing}
    assert {"encode", "quantize"}.isdisjoint(node.stage for node in job.missing)


# --- choosing ---------------------------------------------------------------------------------


def test_a_search_chooses_on_validation_and_repeats_its_trials_for_nothing(tmp_path):
    search = (
        "search=strength",
        "hydra.sweeper.n_trials=2",
        *SMALL,
        "ipc=1",
        f"paths.outputs={tmp_path}",
    )
    assert (first := ddoq(*search)).returncode == 0, first.stderr
    computed = ledger(tmp_path)
    again = ddoq(*search)
    assert again.returncode == 0 and ledger(tmp_path) == computed
    [found] = tmp_path.glob("searches/*/optimization_results.yaml")
    values = []
    for run in tmp_path.glob("runs/digits-*"):
        rows = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
        assert {row["split"] for row in rows} == {"validation"} and not (
            run / "results.jsonl"
        ).read_text()
        values.append(
            fmean(row["top1"] for row in rows if row["table"] == "main" and row["arm"] == "ddoq")
        )
    assert f"best_value: {max(values)}" in found.read_text()
    best = again.stdout[again.stdout.rindex("best ") :].splitlines()
    assert best[0].split() == [
        "best",
        f"{max(values):.1f}",
        "%",
        "on",
        "the",
        "validation",
        "split",
    ]
    for key in ("generator.strength", "generator.guidance_scale"):
        value = yaml.safe_load(found.read_text())["best_params"][key]
        assert f"{key}={value}" in best[1]
    assert best[2].split() == ["results", str(found)]


def test_a_search_on_test_is_refused(tmp_path):
    done = ddoq("search=strength", "split=test", *SMALL, f"paths.outputs={tmp_path}")
    assert (
        done.returncode == 1
        and "split=validation" in done.stderr
        and not (tmp_path / "store").exists()
    )


def test_the_split_is_part_of_what_is_measured(tmp_path):
    run = run_here(*SMALL, "ipc=1", "split=validation", f"paths.outputs={tmp_path}")
    assert "Top-1 on validation" in (run / "report.html").read_text()
