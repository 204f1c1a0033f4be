"""How many cores and how much memory a process may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ddoq.config.checks import check
from ddoq.errors import ConfigError
from ddoq.utils import cores
from support.runs import ROOT, composed


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in cores._SLURM:
        monkeypatch.delenv(name, raising=False)


def group(folder: Path, **files: str) -> Path:
    """Write the files of a control group, an underscore for each point."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_cores_are_those_that_this_process_is_bound_to():
    code = "from ddoq.utils.cores import usable_cores; print(usable_cores())"
    first = min(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{first}}}); {code}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1\n"
    assert 1 <= cores.usable_cores() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("limits", "quotas"),
    [
        (["max 100000"], []),
        (["250000 100000"], [2]),
        (["max 100000", "150000 50000"], [3]),
        (["50000 100000"], [0]),
        (["nonsense"], []),
    ],
)
def test_control_groups_grant_cores(limits, quotas, tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path)
    groups = [group(tmp_path / str(n), cpu_max=limit) for n, limit in enumerate(limits)]
    assert list(cores._quotas(groups)) == quotas


def test_the_first_version_of_control_groups_grants_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path)
    group(tmp_path / "cpu")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert list(cores._quotas([])) == []
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("300000\n")
    assert list(cores._quotas([])) == [3]


def test_memory_is_what_the_control_group_leaves_with_the_files_it_can_give_back(
    tmp_path, monkeypatch
):
    limited = group(tmp_path, memory_max="1000", memory_current="900")
    monkeypatch.setattr(cores, "_groups", lambda: [limited])
    assert cores.usable_memory() == 100
    group(tmp_path, memory_stat="anon 1\ninactive_file 300\n")
    assert cores.usable_memory() == 400
    group(tmp_path, memory_max="max")
    assert cores.usable_memory() <= psutil.virtual_memory().total


def test_slurm_grants_cores_where_it_binds_nothing(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "64")
    assert cores.usable_cores() <= len(os.sched_getaffinity(0))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert cores.usable_cores() == 1


@pytest.mark.parametrize(
    ("asked", "num_nodes", "num"), [(3, 100, 3), (3, 2, 2), (1, 100, 1), (4, 0, 1), ("auto", 1, 1)]
)
def test_no_more_processes_than_nodes(asked, num_nodes, num):
    assert cores.useful_processes(asked, num_nodes) == num


def test_no_more_processes_than_fit_into_the_memory(monkeypatch):
    monkeypatch.setattr(cores, "usable_cores", lambda: 64)
    monkeypatch.setattr(cores, "usable_memory", lambda: 5 * 2**29)
    assert cores.useful_processes("auto", 100) == 2
    assert cores.useful_processes(64, 100) == 64  # whoever says so knows


@pytest.mark.parametrize("value", ["0", "-1", "all", "1.5", "null", "true"])
def test_other_values_than_auto_and_numbers_are_refused(value):
    with pytest.raises(ConfigError, match="trainer.processes") as error:
        check(composed(f"trainer.processes={value}"))
    assert "trainer.processes=auto" in error.value.remedy
    check(composed("trainer.processes=2"))
