"""One command on several cores: the same bytes, and an end that leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from support.processes import ddoq, start
from support.runs import DECODED, ROOT, TINY, artefacts

#: Latents and images that fitted networks make, labels that another one gives, two arms.
BOTH_FITS = (
    *TINY,
    *("baselines=none", "ablation=none", "measure.curve=[1,3]", "ipc=3"),
    *("dataset.train_per_class=30", "protocol.num_seeds=2", "protocol.num_steps=20"),
    *("encoder=vae", "encoder.fit.num_steps=10", "encoder.fit.block_out_channels=[8,16]"),
    *("generator.fit.num_steps=10", "generator.fit.patch_size=1"),
)
STAGES = (
    *("index", "audit", "fit_encoder", "probe", "encode", "quantize", "curve"),
    *("fit_generator", "generate", "label", "evaluate"),
)


def results(outputs: Path) -> dict[str, object]:
    """Return the bytes of all artefacts, and the facts of their manifests."""
    facts = {
        str(path.relative_to(outputs)): json.loads(path.read_text())["facts"]
        for path in (outputs / "store").glob("*/*/manifest.json")
    }
    assert {name.split("/")[1] for name in facts} == {*STAGES}
    return artefacts(outputs, *STAGES) | facts


def test_bytes_do_not_depend_on_the_number_of_processes(tmp_path):
    found = {}
    for num in (1, 2, 4):
        outputs = tmp_path / str(num)
        done = ddoq(
            *BOTH_FITS,
            f"trainer.processes={num}",
            f"paths.outputs={outputs}",
            "run.until=evaluate",
        )
        assert done.returncode == 0, done.stderr
        assert all(f"✓ {stage} " in done.stdout for stage in STAGES)
        assert done.stdout.count("2 students") == 2  # a row when its last student is there
        assert "the first student will tell how long" in done.stdout
        assert "  left: about " in done.stdout
        found[num] = results(outputs)
        pids = {
            json.loads(line)["pid"]
            for line in (outputs / "store" / "ledger.jsonl").read_text().splitlines()
        }
        assert len(pids) == 1 if num == 1 else 1 < len(pids) <= num
    for num in (2, 4):
        assert [name for name in found[1] if found[num].get(name) != found[1][name]] == []
        assert found[num].keys() == found[1].keys()


ANEW = """
import sys
from ddoq.pipeline import crew
from ddoq.run import main

if __name__ == "__main__":
    crew.start_method = lambda: "spawn"
    main()
"""


@pytest.mark.slow
def test_processes_start_anew_where_they_cannot_be_forked(tmp_path):
    """As on macOS and Windows; only the choice of how to start them is another here."""
    script = tmp_path / "anew.py"
    script.write_text(ANEW)
    overrides = (*DECODED, "baselines=none", "protocol.num_seeds=2", "run.until=evaluate")
    commands = {"1": [sys.executable, "-m", "ddoq.run"], "2": [sys.executable, str(script)]}
    made = {}
    for num, command in commands.items():
        outputs = tmp_path / num
        settings = (*overrides, f"trainer.processes={num}", f"paths.outputs={outputs}")
        done = subprocess.run([*command, *settings], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        made[num] = artefacts(outputs, "encode", "quantize", "generate", "label", "evaluate")
        assert ("2 processes start anew" in done.stdout) == (num == "2")
    assert made["1"] == made["2"]


# --- how it ends ------------------------------------------------------------------------------

LONG = {
    "fit_generator": ("generator.fit.num_steps=1000000",),
    "evaluate": ("protocol.num_steps=1000000",),
}


def running(stage: str, num: int, folder: Path):
    """Start a run that takes hours; return its process once a bar moves in a stage."""
    process = start(
        *(*TINY, "baselines=none", "ablation=none", "measure.curve=[]"),
        *(*LONG[stage], f"trainer.processes={num}", f"paths.outputs={folder / 'outputs'}"),
        folder=folder,
    )
    end = time.monotonic() + 240
    while time.monotonic() < end and process.is_alive():
        status = state(folder)
        if status.get("stage") == stage and status["items"] and status["items"]["done"] > 5:
            return process
        time.sleep(0.1)
    process.kill()
    raise AssertionError((folder / "stderr").read_text() or state(folder))


def state(folder: Path) -> dict:
    """Return what the run in a folder says of itself."""
    paths = list((folder / "outputs").glob("runs/*/status.json"))
    try:
        return json.loads(paths[0].read_text()) if paths else {}
    except (ValueError, FileNotFoundError):  # it is just being written
        return {}


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.parametrize(
    ("stage", "num"), [("fit_generator", 1), ("evaluate", 1), ("fit_generator", 2), ("evaluate", 2)]
)
def test_an_interrupt_says_how_to_go_on_and_leaves_no_process(stage, num, tmp_path):
    process = running(stage, num, tmp_path)
    workers = descendants(process.pid)
    assert len(workers) == (0 if num == 1 else num)
    os.kill(process.pid, signal.SIGINT)
    process.join(30)
    assert process.exitcode == 130
    assert (tmp_path / "stderr").read_text() == "ddoq: interrupted; the same command resumes\n"
    assert not any(worker.is_running() for worker in workers)
    assert state(tmp_path)["state"] == "interrupted"
    store = tmp_path / "outputs" / "store"
    assert list(store.glob("encode/*/manifest.json"))
    assert not list(store.glob(f"{stage}/*/manifest.json"))


def test_workers_end_with_a_run_that_is_killed(tmp_path):
    process = running("evaluate", 2, tmp_path)
    workers = descendants(process.pid)
    process.kill()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert len(workers) == 2 and not alive


def test_a_worker_that_is_killed_is_two_lines(tmp_path):
    process = running("evaluate", 2, tmp_path)
    workers = descendants(process.pid)
    workers[0].kill()
    process.join(30)
    assert process.exitcode == 1
    cause, remedy = (tmp_path / "stderr").read_text().splitlines()[-2:]
    assert cause.startswith("ddoq: error: ") and "its process was killed (SIGKILL" in cause
    assert "trainer.processes" in remedy and not any(worker.is_running() for worker in workers)
