"""Several processes: who is one of several, first contact, signals while they wait;
nothing is awaited in vain.
"""

from __future__ import annotations

import multiprocessing
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from ddoq.engine.ranks import Team
from ddoq.errors import ConfigError, StageError
from ddoq.utils.ranks import _first_node, place, unused_tasks
from ddoq.utils.stop import Stopped, stoppable
from support.processes import WARM, ddoq, start
from support.runs import ROOT

INDEX = (
    "generator=decode",
    "run.until=index",
    "dataset.train_per_class=20",
    "trainer.accelerator=cpu",
)

#: What srun gives to each of two tasks; the task's process is missing.
TASK = {
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NAME": "bash",
    "SLURM_NTASKS": "2",
    "SLURM_NNODES": "1",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_STEP_TASKS_PER_NODE": "2",
}
_JOB = {
    "SLURM_JOB_ID": "77",
    "SLURM_NTASKS": "4",
    "SLURM_NNODES": "1",
    "SLURM_NODELIST": "localhost",
}
_SHELL = _JOB | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}

#: What shells and scripts have that are no task of srun.
SHELLS = {
    "salloc": _JOB | {"SLURM_JOB_NAME": "interactive"},
    "salloc's own step": _SHELL | {"SLURM_JOB_NAME": "interactive", "SLURM_STEP_ID": "4294967290"},
    "salloc's own step, named": _SHELL | {"SLURM_JOB_NAME": "mine", "SLURM_STEP_ID": "4294967290"},
    "sbatch": _SHELL | {"SLURM_JOB_NAME": "train.sh"},
    "sbatch from a shell of srun": _SHELL
    | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PTY_PORT": "1"},
    "zsh": _SHELL | {"SLURM_JOB_NAME": "zsh", "SLURM_STEP_ID": "0"},
    "zsh, tasks per node": _SHELL
    | {"SLURM_JOB_NAME": "zsh", "SLURM_STEP_ID": "0", "SLURM_NTASKS_PER_NODE": "4"},
    "task of elsewhere": TASK | {"SLURM_NTASKS": "4", "SLURM_TASK_PID": "1999999999"},
    "half of it": {"SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"},
    "no numbers": _SHELL
    | {"SLURM_STEP_ID": "batch", "SLURM_STEP_NUM_TASKS": "4(x2)", "SLURM_TASK_PID": ""},
}


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "MASTER_")) or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name)


def set_all(monkeypatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


# --- who is one of several --------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_in_an_allocation_is_one_process(shell, monkeypatch):
    set_all(monkeypatch, SHELLS[shell])
    assert (place().rank, place().size) == (0, 1)
    assert unused_tasks() == 4


def test_a_run_in_such_a_shell_says_so_once_and_awaits_nothing(monkeypatch, tmp_path):
    set_all(monkeypatch, SHELLS["zsh"])
    done = ddoq(*INDEX, f"paths.outputs={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1 of SLURM's 4 tasks is used: srun -n 4") == 1


SAY = (
    "export SLURM_TASK_PID=$$; "
    "{python} -c 'from ddoq.utils.ranks import place; p = place(); print(p.rank, p.size)'; :"
)


def test_a_script_that_srun_starts_is_one_of_its_tasks():
    script = ["bash", "-c", SAY.format(python=sys.executable)]
    environment = os.environ | TASK | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        script, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "2"], done.stderr


def test_a_shell_that_srun_gives_a_terminal_is_no_task():
    """`srun -n2 --pty bash` sets what it sets for two tasks,
    and the shell of the second one has ended at once.
    """
    ours, its = pty.openpty()
    script = ["bash", "-c", SAY.format(python=sys.executable)]
    environment = os.environ | TASK | {"PYTHONPATH": str(ROOT), "SLURM_PROCID": "0"}
    done = subprocess.run(script, env=environment, stdin=its, capture_output=True, text=True)
    os.close(ours), os.close(its)
    assert done.stdout.split() == ["0", "1"], done.stderr


def test_tasks_of_one_step_look_for_each_other_at_one_place(monkeypatch):
    set_all(monkeypatch, TASK | {"SLURM_TASK_PID": str(os.getpid())})
    first = place()
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert (place().address, place().port, place().run) == (first.address, first.port, first.run)
    assert (first.address, first.rank, place().rank) == ("n1", 1, 0)
    monkeypatch.setenv("SLURM_STEP_ID", "1")  # which may run beside the other, on the same node
    assert place().port != first.port and place().run != first.run


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[07-09,12],login", "gpu07"),
        ("r[2,4]-x", "r2-x"),
        ("a-[3-4]", "a-3"),
    ],
)
def test_the_first_node_of_a_list(nodes, first):
    assert _first_node(nodes) == first


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "0"}, "RANK=0 without WORLD_SIZE"),
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE=4 without RANK"),
        ({"RANK": "", "WORLD_SIZE": ""}, "RANK='' is no number"),
        ({"RANK": "first", "WORLD_SIZE": "2"}, "RANK='first' is no number"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK='-1' is no number"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK=0 is none of WORLD_SIZE=0"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 is none of WORLD_SIZE=2"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "without MASTER_ADDR"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}, "without MASTER_PORT"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK='x' is no number"),
    ],
)
def test_variables_that_contradict_each_other_are_named(variables, said, monkeypatch):
    set_all(monkeypatch, variables)
    with pytest.raises(ConfigError, match="unset") as caught:
        place()
    assert said in caught.value.cause


@pytest.mark.parametrize(
    "variables", [{}, {"RANK": "0", "WORLD_SIZE": "1"}, {"LOCAL_RANK": "3"}, {"SLURM_STEP_ID": "0"}]
)
def test_what_describes_one_process_is_one(variables, monkeypatch):
    set_all(monkeypatch, variables)
    assert (place().rank, place().size, unused_tasks()) == (0, 1, 0)


def test_rank_alone_is_two_lines(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "0")
    done = ddoq(*INDEX, f"paths.outputs={tmp_path}")
    assert done.returncode == 1 and "unset RANK" in done.stderr
    assert "bug" not in done.stderr and "Traceback" not in done.stderr


# --- first contact ----------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def begin(monkeypatch, folder: Path, port: int, rank: int, size: int, *overrides: str):
    set_all(
        monkeypatch,
        {
            "RANK": str(rank),
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        },
    )
    (own := folder / str(rank)).mkdir(exist_ok=True)
    return start(*INDEX, f"paths.outputs={folder / 'outputs'}", *overrides, folder=own)


def test_whoever_does_not_come_is_named(monkeypatch, tmp_path):
    port = free_port()
    runs = [
        begin(monkeypatch, tmp_path, port, rank, 3, "trainer.join_timeout=6") for rank in (0, 2)
    ]
    for run in runs:
        run.join(60)
    for run, rank in zip(runs, (0, 2), strict=True):
        said = (tmp_path / str(rank) / "stderr").read_text()
        assert run.exitcode == 1, said
        assert "1 of 3 processes have not come: 1 (here: " in said
        assert f"RANK={rank} WORLD_SIZE=3" in said and "bug" not in said
    assert "unset RANK WORLD_SIZE" in (tmp_path / "0" / "stderr").read_text()


def test_a_first_process_that_does_not_answer_is_named(monkeypatch, tmp_path):
    with socket.socket() as mute:  # it is somebody's port, who says nothing
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        run = begin(monkeypatch, tmp_path, mute.getsockname()[1], 1, 2, "trainer.join_timeout=2")
        run.join(60)
    said = (tmp_path / "1" / "stderr").read_text()
    assert run.exitcode == 1 and "process 0 of 2 does not answer at 127.0.0.1:" in said


def test_two_processes_with_one_number_are_refused(monkeypatch, tmp_path):
    port = free_port()
    first = begin(monkeypatch, tmp_path, port, 0, 3)
    others = [begin(monkeypatch, tmp_path, port, 1, 3) for _ in range(2)]
    for run in (first, *others):
        run.join(50)
        assert run.exitcode == 1
    assert "two processes are number 1 of 3" in (tmp_path / "0" / "stderr").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_the_waiting(number, monkeypatch, tmp_path):
    port = free_port()
    run = begin(monkeypatch, tmp_path, port, 0, 2)
    listens(port)
    os.kill(run.pid, number)
    run.join(10)
    assert run.exitcode == 128 + number
    assert "the same command resumes" in (tmp_path / "0" / "stderr").read_text()


def listens(port: int, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("nobody listens")


def test_those_who_come_meet_and_share_the_work(monkeypatch, tmp_path):
    port = free_port()
    runs = [begin(monkeypatch, tmp_path, port, rank, 2) for rank in (1, 0)]
    for run in runs:
        run.join(120)
        assert run.exitcode == 0
    assert "index" in (tmp_path / "0" / "stdout").read_text()
    assert (tmp_path / "1" / "stdout").read_text() == ""  # the first one speaks


# --- later meetings ---------------------------------------------------------------------------


def meet(rank: int, port: int, pipe: Connection) -> None:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    team = Team(place(), patience=60)
    assert team.gather(rank) == [0, 1]
    pipe.send("met")
    if rank:
        time.sleep(100)
    try:
        with stoppable():
            team.gather()
    except (Stopped, StageError) as error:
        pipe.send(str(error))


@pytest.mark.parametrize("what", ["the waiting one is stopped", "the other one dies"])
def test_a_long_wait_hears_signals_and_deaths(what):
    ours, its = multiprocessing.Pipe()
    port = free_port()
    first, second = (WARM.Process(target=meet, args=(rank, port, its)) for rank in (0, 1))
    first.start(), second.start()
    try:
        assert [ours.recv(), ours.recv()] == ["met", "met"]
        time.sleep(0.5)
        second.kill() if what == "the other one dies" else first.terminate()
        assert ours.poll(10)
        said = (
            "another of the 2 processes is gone"
            if what == "the other one dies"
            else "stopped by SIGTERM"
        )
        assert ours.recv().startswith(said)
        first.join(10)
        assert first.exitcode == 0
    finally:
        first.kill(), second.kill()
