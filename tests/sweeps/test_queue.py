"""What a launcher says of SLURM's queue, from texts of squeue and sinfo 22.05.

With a real one: test_slurm.py.
"""

from __future__ import annotations

import pytest

from ddoq.sweeps.asked import Asked, ComputeNodes, read_partitions
from ddoq.sweeps.queue import never_starts, read_queue, refusal, summary
from ddoq.sweeps.waves import Wave
from support.processes import new_python
from support.runs import TINY, composed

QUEUE = """\
8|PENDING|main|Resources
8|PENDING|main|Priority
8|RUNNING|main|None
8|COMPLETED|main|None
9|PENDING|main|{}
9|CANCELLED|main|None
"""

#: One node is busy and one is not; `short` is another name for the same nodes.
SINFO = """\
main*|1|2|4000|gpu:2|1-00:00:00
main*|1|2|4000|gpu:2|1-00:00:00
short|2|2|4000|gpu:2|5:00
big|4|64|257000|gpu:a100:4(S:0-1),shard:8|infinite
cpu|10|16|64000|(null)|2-12:00:00
"""


def asked(wave: Wave | None = None, **changes) -> Asked:
    """The resources of ``launcher=slurm``, with changes."""
    own = {
        "cpus_per_task": 8,
        "mem_gb": 32,
        "gpus_per_node": 1,
        "timeout_min": 240,
        "tasks_per_node": 1,
        "nodes": 1,
    }
    return Asked({"partition": None} | own | changes, wave or Wave("report", {}))


@pytest.mark.parametrize(
    "reason",
    [
        *(
            "PartitionConfig",
            "PartitionTimeLimit",
            "PartitionNodeLimit",
            "BadConstraints",
            "DependencyNeverSatisfied",
        ),
        *(
            "InvalidAccount",
            "InvalidQOS",
            "QOSMaxCpuPerJobLimit",
            "QOSMaxWallDurationPerJobLimit",
            "QOSMinGRES",
        ),
        *("AssocMaxGRESPerJob", "AssocMaxWallDurationPerJobLimit", "MaxMemPerLimit"),
    ],
)
def test_jobs_that_can_never_start(reason):
    entries = read_queue(QUEUE.format(reason))
    assert never_starts(entries).job == "9" and never_starts(entries).reason == reason


@pytest.mark.parametrize(
    "reason",
    [
        *(
            "Priority",
            "Resources",
            "JobArrayTaskLimit",
            "Dependency",
            "BeginTime",
            "Reservation",
            "PartitionDown",
        ),
        *(
            "ReqNodeNotAvail, UnavailableNodes:n[1-2]",
            "QOSMaxJobsPerUserLimit",
            "AssocGrpGRES",
            "JobHeldUser",
        ),
        *("MaxCpuPerAccount", "QOSGrpCpuLimit", "(launch failed requeued held)"),
    ],
)
def test_jobs_that_may_still_start_are_waited_for(reason):
    assert never_starts(read_queue(QUEUE.format(reason))) is None


def test_a_reason_of_a_job_that_runs_is_none():
    assert never_starts(read_queue("9|RUNNING|main|PartitionConfig\n")) is None


def test_one_line_says_what_runs_and_what_is_awaited():
    assert (
        summary(read_queue(QUEUE.format("Priority")))
        == "1 running, 3 pending (Priority; Resources)"
    )
    assert "`scontrol release`" in summary(read_queue("14|PENDING|main|JobHeldUser\n"))
    assert summary(read_queue("8|COMPLETED|main|None\n")) == "no more jobs, waiting for results"
    assert read_queue("") == []


def test_partitions_are_read_with_their_nodes():
    main, short, big, cpu = read_partitions(SINFO)
    assert main == ComputeNodes(
        partition="main", default=True, number=2, cpus=2, memory=4000, gpus=2, minutes=1440
    )
    assert (short.minutes, short.default, big.gpus, big.minutes, cpu.gpus, cpu.minutes) == (
        5,
        False,
        4,
        None,
        0,
        3600,
    )
    assert read_partitions("sinfo: what is this?\n") == []


def test_the_error_says_what_was_asked_for_what_there_is_and_what_would_fit():
    error = asked().error(
        "SLURM can never start job 8 (PartitionConfig)", read_partitions(SINFO), "main"
    )
    assert "asked for 1 node of 8 cores, 32 GB, 1 GPU, for 240 min" in error.cause
    assert "partition main has 2 nodes of 2 cores, 3.91 GB, 2 GPUs, at most 1440 min" in error.cause
    fitting = "set hydra.launcher.cpus_per_task=2 hydra.launcher.mem_gb=3"
    assert error.remedy == f"{fitting}, or set hydra.launcher.partition to one that has it: big"


def test_the_default_partition_is_that_of_the_star():
    assert "partition main has" in asked().error("refused", read_partitions(SINFO), None).cause


def test_what_fits_is_not_named_among_what_is_too_much():
    error = asked(cpus_per_task=2, mem_gb=3).error("too long", read_partitions(SINFO), "short")
    assert error.remedy.startswith(
        "set hydra.launcher.timeout_min=5, or "
    ) and error.remedy.endswith(": big, main")


def test_several_tasks_are_made_fewer_before_they_have_no_core():
    error = asked(tasks_per_node=8, gpus_per_node=8).error(
        "too much", read_partitions(SINFO), "main"
    )
    fitting = {"tasks_per_node=2", "cpus_per_task=1", "mem_gb=3", "gpus_per_node=2"}
    assert set(error.remedy.removeprefix("set ").split(", or")[0].split()) == {
        f"hydra.launcher.{f}" for f in fitting
    }


def test_what_a_wave_has_of_its_own_is_named_by_its_own_key():
    wave = Wave("label", {"timeout_min": 600})
    error = asked(wave, cpus_per_task=1, mem_gb=1, timeout_min=600).error(
        "too long", read_partitions(SINFO), "short"
    )
    assert "set sweep.resources.report.timeout_min=5" in error.remedy
    assert (
        "sweep.resources" not in asked().error("too long", read_partitions(SINFO), "short").remedy
    )


def test_the_keys_are_those_of_the_launcher():
    launcher = composed("launcher=slurm")["sweep"]["resources"]["report"]
    assert {
        "cpus_per_task",
        "mem_gb",
        "gpus_per_node",
        "timeout_min",
        "tasks_per_node",
        "nodes",
    } <= set(launcher)


@pytest.mark.parametrize(
    ("said", "cause", "remedy"),
    [
        (
            "Batch job submission failed: Unable to contact slurm controller (connect failure)",
            "answer",
            "scontrol ping",
        ),
        (
            "Batch job submission failed: Invalid account or account/partition combination",
            "refuses",
            "account",
        ),
        ("invalid partition specified: gpu", "refuses", "account, qos"),
    ],
)
def test_a_refused_submission_is_two_lines(said, cause, remedy, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no sinfo
    error = refusal(RuntimeError(f"sbatch: error: {said}"), asked())
    assert cause in error.cause and said in error.cause and remedy in error.remedy


def test_what_is_not_slurms_stays_what_it_is():
    error = ValueError("cannot pickle")
    assert refusal(error, asked()) is error


def test_a_machine_without_slurm_is_two_lines(tmp_path):
    done = new_python(
        "launcher=slurm", *TINY, "ipc=1,2", f"paths.outputs={tmp_path}", PATH=str(tmp_path)
    )
    assert done.returncode == 1 and "bug" not in done.stderr and "Traceback" not in done.stderr
    assert "there is no SLURM on this machine" in done.stderr and "launcher=joblib" in done.stderr
