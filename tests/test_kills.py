"""Killed at any moment, the same command finishes the same (``tests/kills.py``)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.parametrize(
    ("num_kills", "overrides"), [(8, "short"), pytest.param(200, "whole", marks=pytest.mark.slow)]
)
def test_killed_runs_finish_with_the_bytes_of_an_undisturbed_one(
    tmp_path: Path, num_kills: int, overrides: str
):
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tests" / "kills.py"),
            str(tmp_path),
            str(num_kills),
            "0",
            overrides,
        ],
        cwd=ROOT,
        text=True,
        capture_output=True,
        # one thread: a forked pool of threads has none
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    print(done.stdout)
    hit = int(done.stdout.splitlines()[-1].split(" kills:")[0])
    assert hit >= num_kills
