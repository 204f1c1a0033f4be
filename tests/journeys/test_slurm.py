"""A sweep on a real SLURM: stages in waves, cancelled in the middle, submitted again.

``make test-slurm``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from support.cluster import cluster
from support.runs import ROOT, TINY

pytestmark = pytest.mark.slurm

SWEEP = (
    *(value for value in TINY if not value.startswith("ablation")),
    "launcher=slurm",
    "ipc=1,2,3,4",
    "weighting=uniform,mass",
    "ablation=none",
    "protocol.num_steps=200",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1",
)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> dict[str, str]:
    with cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "150"}


def start(outputs: Path, slurm: dict[str, str], *overrides: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "ddoq.run", *SWEEP, f"paths.outputs={outputs}", *overrides]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=slurm, cwd=ROOT, text=True, stdout=pipe, stderr=pipe, start_new_session=True
    )


def wait_for(condition, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def submitted(outputs: Path) -> int:
    return len(list((outputs / "runs" / ".submitit").glob("*/*_submitted.pkl")))


def test_a_cancelled_sweep_goes_on_and_computes_nothing_twice(slurm, tmp_path):
    launcher = start(tmp_path, slurm)
    try:
        wait_for(lambda: len(list(tmp_path.glob("store/evaluate/*/manifest.json"))) >= 3)
    finally:
        os.killpg(launcher.pid, signal.SIGKILL)
    subprocess.run(["scancel", f"--user={os.geteuid()}"], env=slurm, check=True)
    queue = ["squeue", "-h", "-t", "pending,running,completing"]
    wait_for(
        lambda: not subprocess.run(queue, env=slurm, capture_output=True, text=True).stdout.strip()
    )
    assert not all((run / "report.html").exists() for run in tmp_path.glob("runs/digits-*")), (
        "cancelled too late"
    )

    output, errors = (again := start(tmp_path, slurm)).communicate(timeout=600)
    assert again.returncode == 0, output + errors
    computed = Counter(
        json.loads(line)["key"]
        for line in (tmp_path / "store/ledger.jsonl").read_text().splitlines()
    )
    assert set(computed.values()) == {1}
    [record] = tmp_path.glob("sweeps/*/sweep.json")
    runs = [point["run"] for point in json.loads(record.read_text())["points"]]
    assert len(set(runs)) == 8
    assert all((tmp_path / "runs" / run / "report.html").exists() for run in runs)
    assert (record.parent / "table.csv").exists()

    before, begin = submitted(tmp_path), time.monotonic()
    output, errors = (finished := start(tmp_path, slurm)).communicate(timeout=100)
    print(f"a sweep of 8 points that is in the store: {time.monotonic() - begin:.1f} s")
    assert finished.returncode == 0, output + errors
    assert submitted(tmp_path) == before


def test_what_points_share_is_computed_by_one_job(slurm, tmp_path):
    done = start(tmp_path, slurm, "run.until=generate", "baselines=none", "ipc=1,2")
    output, errors = done.communicate(timeout=400)
    assert done.returncode == 0, output + errors
    # latents: one job for all points; codebooks and images:
    # one for each ipc, as weights change neither
    assert "up to encode: 1 of 4 points" in output
    assert "up to curve: 2 of 4 points" in output
    assert submitted(tmp_path) <= 5


def test_two_processes_of_a_job_share_its_work(slurm, tmp_path):
    overrides = (
        "ipc=2",
        "weighting=mass",
        "sweep.waves=[]",
        "hydra.launcher.tasks_per_node=2",
        "run.until=label",
    )
    done = start(tmp_path, slurm, *overrides, "hydra.launcher.gpus_per_node=null")
    output, errors = done.communicate(timeout=400)
    assert done.returncode == 0, output + errors
    pids = {
        json.loads(line)["pid"]
        for line in (tmp_path / "store/ledger.jsonl").read_text().splitlines()
    }
    assert len(pids) == 2


def test_a_bad_point_or_bad_resources_never_reach_the_queue(slurm, tmp_path):
    for override, said in (
        ("seed=0,-1", "negative"),
        ("sweep.resources.encode.gpu_per_node=1", "gpus_per_node"),
    ):
        done = start(tmp_path, slurm, override)
        _, errors = done.communicate(timeout=100)
        assert done.returncode == 1 and said in errors and "Traceback" not in errors
    assert submitted(tmp_path) == 0


def test_a_job_that_can_never_start_is_said_and_cancelled(slurm, tmp_path):
    """The default asks for 8 cores and 32 GB, the nodes have 2 and 4 GB:
    reason PartitionConfig, for ever.
    """
    done = start(tmp_path, slurm, "hydra.launcher.cpus_per_task=8", "hydra.launcher.mem_gb=32")
    output, errors = done.communicate(timeout=100)
    assert done.returncode == 1, output
    assert (
        "SLURM can never start job" in errors
        and "asked for 1 node of 8 cores, 32 GB, 1 GPU" in errors
    )
    assert "partition main has 2 nodes of 2 cores" in errors
    assert "set hydra.launcher.cpus_per_task=2 hydra.launcher.mem_gb=3" in errors
    assert output.count("pending (PartitionConfig)") == 1
    assert not in_queue(slurm)


def test_an_interrupt_cancels_what_is_pending_and_leaves_what_runs(slurm, tmp_path):
    overrides = (
        "sweep.waves=[]",
        "hydra.launcher.array_parallelism=1",
        "protocol.num_steps=100000",
    )
    launcher = start(tmp_path, slurm, *overrides)
    wait_for(lambda: "RUNNING" in in_queue(slurm) and "PENDING" in in_queue(slurm))
    time.sleep(2)
    launcher.send_signal(signal.SIGINT)
    output, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 130 and "the same command resumes" in errors
    assert "pending jobs cancelled, what runs goes on (`scancel " in output
    assert set(in_queue(slurm)) == {"RUNNING"}
    subprocess.run(["scancel", f"--user={os.geteuid()}"], env=slurm, check=True)
    wait_for(lambda: not in_queue(slurm))


def test_a_cancelled_job_is_noticed_without_accounting(slurm, tmp_path):
    launcher = start(
        tmp_path, slurm, "ipc=1", "weighting=mass", "sweep.waves=[]", "protocol.num_steps=100000"
    )
    wait_for(lambda: in_queue(slurm) == ["RUNNING"])
    subprocess.run(["scancel", f"--user={os.geteuid()}"], env=slurm, check=True)
    output, errors = launcher.communicate(timeout=200)
    assert launcher.returncode == 1 and "not finished up to report" in errors, output + errors


def test_a_controller_that_does_not_answer_is_two_lines(slurm, tmp_path):
    conf = Path(slurm["SLURM_CONF"])
    (tmp_path / "slurm.conf").write_text(
        re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=1", conf.read_text())
    )
    done = start(tmp_path, slurm | {"SLURM_CONF": str(tmp_path / "slurm.conf")})
    _, errors = done.communicate(timeout=100)
    assert (
        done.returncode == 1
        and "SLURM's controller does not answer" in errors
        and "bug" not in errors
    )


def in_queue(slurm: dict[str, str]) -> list[str]:
    states = subprocess.run(
        ["squeue", "-h", "-r", "-o", "%T"], env=slurm, capture_output=True, text=True
    ).stdout
    return states.split()
