"""The command itself: what it says of itself, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ddoq import __version__
from support.processes import ddoq
from support.runs import TINY


def test_version_is_ours_and_names_what_results_depend_on():
    done = ddoq("--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"ddoq {__version__} (torch {torch.__version__.split('+')[0]}")


@pytest.mark.parametrize(
    ("override", "code"),
    [("run.plan_only=true", 0), ("generator.strength=7", 1), ("generator.path=nowhere", 1)],
)
def test_what_was_only_looked_at_or_refused_leaves_no_run(override: str, code: int, tmp_path: Path):
    done = ddoq(*TINY, f"paths.outputs={tmp_path}", override)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 2 * code  # none of them Hydra's
    assert list((tmp_path / "runs").glob("*")) == []


def test_a_run_keeps_what_it_has_said(tmp_path: Path):
    done = ddoq(*TINY, "run.until=quantize", "baselines=none", f"paths.outputs={tmp_path}")
    assert done.returncode == 0, done.stderr
    (log,) = (tmp_path / "runs").glob("*/run.log")
    text = log.read_text()
    assert f"ddoq {__version__}" in text and "run.until=quantize" in text
    finished = [line for line in done.stdout.splitlines() if line.startswith("✓")]
    assert finished and all(line.strip() in text for line in finished)
