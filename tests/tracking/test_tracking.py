"""What trackers write, read back with their own tools: W&B offline, TensorBoard, CSV;
crashes, outages, secrets.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import fmean, stdev

import pytest

from ddoq.config.names import run_name
from ddoq.config.secrets import check_secrets, leaves
from ddoq.errors import ConfigError
from ddoq.tracking import session, weights_and_biases
from ddoq.utils.io import read_json, write_json
from support.processes import ddoq, new_python
from support.runs import ROOT, TINY, composed, run_here

#: Bare decoding of one arm and its twin, and the full data.
FAST = (
    *(word for word in TINY if not word.startswith(("generator.", "ablation.", "measure."))),
    "generator=decode",
    "measure.curve=[]",
    "measure.num_folds=0",
    "ablation=none",
    "baselines=none",
    "+baselines.full={}",
)
KEY = "0123456789abcdef0123456789abcdef01234567"
ARMS = ("full", "ddoq_uniform", "ddoq")


@pytest.fixture(scope="module", autouse=True)
def wandb_at_home(tmp_path_factory) -> Iterator[Path]:
    """A key in the environment, and W&B's own folders where they can be looked at."""
    home = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", KEY)
        for name in ("DATA", "CACHE", "CONFIG"):
            patch.setenv(f"WANDB_{name}_DIR", str(home / name.lower()))
        yield home


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """The outputs of two jobs in one process: a run, and the same with other weights in a sweep."""
    outputs = tmp_path_factory.mktemp("outputs")
    common = (*FAST, f"paths.outputs={outputs}", "logger=wandb_offline")
    run_here(*common)
    run_here(*common, "weighting=power", "sweep.name=weights")
    return outputs


def run_dir(outputs: Path, *overrides: str) -> Path:
    return outputs / "runs" / run_name(composed(*FAST, *overrides))


@cache
def inspect(folder: Path, key: str) -> dict:
    """Return what a W&B log says of the only run with this id."""
    (log,) = folder.glob(f"wandb/offline-run-*-{key}/run-{key}.wandb")
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict = {"config": {}, "summary": {}, "history": [], "artifact": [], "text": done.stdout}
    for record in map(json.loads, done.stdout.splitlines()):
        kind = record["type"]
        body = record.get(kind, {})
        if kind == "run":
            found |= {"run": body}
            found["config"] |= body["config"]["update"]
        elif kind in ("config", "summary"):
            found[kind] |= body["update"]
        elif kind in ("history", "artifact"):
            found[kind].append(body)
        elif kind == "exit":
            found["exit"] = body["exit_code"]
    return found


def of_main_table(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def manifest(outputs: Path, stage: str, key: str) -> dict:
    return read_json(outputs / "store" / stage / key / "manifest.json")


def of_job(folder: Path) -> dict:
    return inspect(folder, folder.name.rsplit("-", 1)[1])


# --- W&B --------------------------------------------------------------------------------------


def test_job_is_one_run_with_columns_and_metrics(outputs):
    folder = run_dir(outputs)
    found, rows = of_job(folder), of_main_table(folder)
    assert (found["run"]["display_name"], found["run"]["job_type"]) == (folder.name, "pipeline")
    assert found["run"]["run_group"] == "digits" and found["exit"] == 0
    config, summary = found["config"], found["summary"]
    assert (
        config["choices"] | {"quantizer": "kmeans", "generator": "decode", "protocol": "smoke"}
        == config["choices"]
    )
    assert config["ipc"] == 10 and config["protocol"]["num_steps"] == 20
    assert "${" not in found["text"]  # nothing unresolved
    assert config["derived"] == {
        **{"num_classes": 10, "num_train": 1099, "num_images": 100, "epochs": None},
        **{name: rows[-1][name] for name in ("num_steps", "batch_size", "learning_rate")},
    }
    for arm in ARMS:
        top1 = [row["top1"] for row in rows if row["arm"] == arm]
        assert summary[f"test/{arm}/top1_mean"] == pytest.approx(fmean(top1)) and len(top1) == 2
        assert summary[f"test/{arm}/top1_num"] == 2
        assert summary[f"test/{arm}/top1_std"] == pytest.approx(stdev(top1))
    facts = manifest(outputs, "quantize", config["key"]["quantize"])["facts"]
    assert summary["codebook/ddoq/w2_squared"] == pytest.approx(facts["w2_squared"])
    assert "codebook/full/w2_squared" not in summary
    seconds = [
        value
        for name, value in summary.items()
        if name.startswith("cost/") and name.endswith("/seconds")
    ]
    assert (
        summary["cost/total_seconds"] == pytest.approx(sum(seconds))
        and summary["cost/peak_mib"] > 50
    )
    (logged,) = found["history"]  # one table, one grid
    assert {item.split(".")[0] for item in logged["item"]} >= {"results", "distilled"}


def test_artifacts_are_codebook_and_images_and_never_latents(outputs):
    found = of_job(run_dir(outputs))
    codebook, images = (one for one in found["artifact"] if one["type"] != "run_table")
    keys = found["config"]["key"]
    assert (codebook["type"], images["type"]) == ("codebook", "distilled-dataset")
    # The input, the output.
    assert codebook["use_after_commit"] and "use_after_commit" not in images
    assert keys["quantize"] in codebook["aliases"] and keys["label"] in images["aliases"]
    metadata = json.loads(images["metadata"])
    assert (metadata["codebook"], metadata["latents"]) == (keys["quantize"], keys["encode"])
    names = [one["path"] for one in images["manifest"]["contents"]]
    assert sum(name.endswith(".png") for name in names) == 100 and "metadata.parquet" in names
    # uploaded from the store, from any folder; nothing is copied for it
    sources = [
        Path(one["local_path"])
        for one in codebook["manifest"]["contents"] + images["manifest"]["contents"]
    ]
    assert {source.relative_to(outputs / "store").parts[0] for source in sources} == {
        "quantize",
        "label",
    }
    assert not list(outputs.glob("runs/*/wandb/**/*.safetensors"))


def test_students_are_runs_of_their_own_with_their_curves(outputs):
    folder = run_dir(outputs)
    rows = of_main_table(folder)
    ids = {path.name.rsplit("-", 1)[1] for path in folder.glob("wandb/offline-run-*")}
    assert ids == {row["key"] for row in rows} | {folder.name.rsplit("-", 1)[1]}
    for row, name in ((rows[0], "full-s0"), (rows[-1], "ddoq-ipc10-s1")):
        found = inspect(folder, row["key"])
        assert (found["run"]["display_name"], found["run"]["job_type"]) == (name, "student")
        assert found["run"]["run_group"] == "digits" and found["exit"] == 0
        assert found["config"]["arm"] == row["arm"] and found["config"]["seed"] == row["seed"]
        assert found["summary"]["top1"] == row["top1"] and found["summary"]["ece"] == row["ece"]
        curve = [
            {
                "step": point["step"]["num"],
                **{name: point["item"][name] for name in ("top1", "loss")},
            }
            for point in found["history"]
        ]
        assert curve == manifest(outputs, "evaluate", row["key"])["facts"]["history"]
        assert curve[-1]["step"] == row["num_steps"]


def test_two_jobs_in_one_process_are_two_runs_in_their_groups(outputs):
    first, second = run_dir(outputs), run_dir(outputs, "weighting=power")
    one, other = of_job(first), of_job(second)
    assert one["run"]["run_id"] != other["run"]["run_id"] and other["run"]["run_group"] == "weights"
    assert (one["config"]["choices"]["weighting"], other["config"]["choices"]["weighting"]) == (
        "mass",
        "power",
    )
    shared = next(row["key"] for row in of_main_table(second) if row["arm"] == "full")
    assert inspect(first, shared)["run"]["run_group"] == "digits"
    assert inspect(second, shared)["run"]["run_group"] == "weights"


def test_only_the_job_where_students_are_not_wanted(outputs, tmp_path):
    shutil.copytree(outputs / "store", tmp_path / "store")
    folder = run_here(
        *FAST, f"paths.outputs={tmp_path}", "logger=wandb_offline", "logger.students=false"
    )
    assert len(list(folder.glob("wandb/offline-run-*"))) == 1
    assert of_job(folder)["summary"]["test/ddoq/top1_num"] == 2


def test_a_key_in_the_environment_is_in_no_file(outputs, wandb_at_home):
    files = [
        path for root in (outputs, wandb_at_home) for path in root.rglob("*") if path.is_file()
    ]
    assert any(path.suffix == ".wandb" for path in files)
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_run_can_be_synced_as_the_readme_says(outputs):
    """`wandb sync <run folder>/wandb` finds all of its runs."""
    command = [
        sys.executable,
        "-m",
        "wandb",
        "sync",
        "--dry-run",
        *map(str, outputs.glob("runs/*/wandb")),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (
        done.returncode == 0
        and f"Would sync {2 * (1 + 2 * len(ARMS))} run(s)" in done.stdout + done.stderr
    )


@pytest.mark.parametrize("end", ["error", "sigterm"])
def test_a_crash_is_shown_as_a_crash(end, tmp_path):
    config = composed("logger=wandb_offline")
    with pytest.raises((ValueError, SystemExit)), session(config, tmp_path):
        if end == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        raise ValueError
    assert inspect(tmp_path, run_name(config).rsplit("-", 1)[1])["exit"] == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("key", [KEY, None])
def test_an_outage_is_a_warning(key, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(weights_and_biases, "_CONNECT", 2.0)
    if key is None:
        monkeypatch.delenv("WANDB_API_KEY")
    start = time.perf_counter()
    with session(composed("logger=wandb"), tmp_path) as tracker:
        tracker.log(None)  # nothing is asked of results that nobody takes
    assert time.perf_counter() - start < 10
    assert "the run goes on without it" in " ".join(capsys.readouterr().out.split())


def test_what_hangs_is_left_behind(capsys):
    assert weights_and_biases._guarded(lambda: time.sleep(60), 0.05) is None
    assert "no answer" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_without_a_server_ends_well(outputs, tmp_path):
    shutil.copytree(outputs / "store", tmp_path / "store")
    start = time.perf_counter()
    done = new_python(
        *FAST, f"paths.outputs={tmp_path}", "logger=wandb", WANDB_BASE_URL="http://127.0.0.1:9"
    )
    assert (
        done.returncode == 0
        and "the run goes on" in done.stdout
        and list(tmp_path.glob("runs/*/results.jsonl"))
    )
    assert time.perf_counter() - start < 45


# --- TensorBoard and CSV ----------------------------------------------------------------------


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(one.step, one.value) for one in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_shows_metrics_pictures_and_curves_once(outputs, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shutil.copytree(outputs / "store", tmp_path / "store")
    (old,) = {
        row["key"]
        for row in of_main_table(run_dir(outputs))
        if row["arm"] == "full" and row["seed"] == 0
    }
    path = tmp_path / "store" / "evaluate" / old / "manifest.json"
    before = read_json(path)
    before["facts"].pop("history")  # an artefact from before there was one
    write_json(path, before)
    for _ in range(2):
        folder = run_here(*FAST, f"paths.outputs={tmp_path}", "logger=tensorboard")
    rows = of_main_table(folder)
    found = scalars(folder / "tensorboard" / "pipeline")
    top1 = fmean(row["top1"] for row in rows if row["arm"] == "ddoq")
    assert found["test/ddoq/top1_mean"] == [(0, pytest.approx(top1))]
    events = EventAccumulator(str(folder / "tensorboard" / "pipeline")).Reload()
    assert events.Images("distilled")[0].encoded_image_string == (folder / "grid.png").read_bytes()
    facts = manifest(tmp_path, "evaluate", rows[-1]["key"])["facts"]
    curve = scalars(folder / "tensorboard" / "ddoq-ipc10-s1")
    assert curve["loss"] == [
        (point["step"], pytest.approx(point["loss"])) for point in facts["history"]
    ]
    curve = scalars(folder / "tensorboard" / "full-s0")
    assert curve == {
        "top1": [
            (i, pytest.approx(top1)) for i, top1 in enumerate(before["facts"]["accuracies"], 1)
        ]
    }


def test_tensorboard_that_is_not_installed_stops_before_anything_is_computed(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    # How Python notes that a package cannot be imported.
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match=r"not installed\n.*pip install 'ddoq\[tensorboard\]'"):
        run_here(*FAST, f"paths.outputs={tmp_path}", "logger=tensorboard")
    assert not list(tmp_path.rglob("manifest.json"))


def test_csv_holds_the_rows(outputs, tmp_path):
    shutil.copytree(outputs / "store", tmp_path / "store")
    folder = run_here(*FAST, f"paths.outputs={tmp_path}", "logger=csv")
    with (folder / "results.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    rows = of_main_table(folder)
    assert [(row["arm"], float(row["top1"])) for row in found] == [
        (row["arm"], row["top1"]) for row in rows
    ]


# --- secrets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("logger.entity", KEY, "WANDB_API_KEY"),
        ("logger.entity", KEY[::-1], "a W&B API key"),
        ("teacher.path", f"hf://me/model?token=hf_{'a' * 30}", "a Hugging Face token"),
        ("paths.data", "https://me:hunter2@example.org/data", "a password"),
        ("paths.models", "/models/of-MY-long-token-value", "MY_TOKEN"),
    ],
)
def test_secrets_are_refused_and_not_repeated(key, value, what, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "MY-long-token-value")
    with pytest.raises(ConfigError, match=rf"^{key}: holds .*{what}") as caught:
        check_secrets([("ipc", 10), (key, value)])
    assert value not in str(caught.value)


def test_revisions_urls_and_every_experiment_hold_no_secrets():
    check_secrets(
        [
            ("encoder.revision", "31f26fdeee1355a5c34592e401dd41e45d25a493"),
            ("x", "https://a.org:80/b?c=@d"),
        ]
    )
    for experiment in sorted((ROOT / "conf" / "experiment").glob("*.yaml")):
        check_secrets(leaves(composed(f"+experiment={experiment.stem}")))


def test_a_secret_on_the_command_line_is_never_written(tmp_path):
    done = ddoq(f"logger.entity={KEY}", f"paths.outputs={tmp_path}")
    assert done.returncode == 1 and KEY not in done.stdout + done.stderr
    assert done.stderr.count("\n") == 2 and not list(tmp_path.rglob("*"))
