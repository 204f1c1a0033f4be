"""Killed at any moment, the same command finishes the same (``tests/support/kills.py``)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.runs import ROOT


@pytest.mark.parametrize(
    ("num_kills", "overrides"), [(4, "short"), pytest.param(200, "whole", marks=pytest.mark.slow)]
)
def test_killed_runs_finish_with_the_bytes_of_an_undisturbed_one(
    tmp_path: Path, num_kills: int, overrides: str
):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "support.kills",
            str(tmp_path),
            str(num_kills),
            "0",
            overrides,
        ],
        cwd=ROOT,
        text=True,
        capture_output=True,
        # one thread: a forked pool of threads has none
        env=os.environ
        | {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        },
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    print(done.stdout)
    hit = int(done.stdout.splitlines()[-1].split(" kills:")[0])
    assert hit >= num_kills
