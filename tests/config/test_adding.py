"""A component is one file of Python and one of YAML: tried on a copy of the house."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

from support.runs import ROOT

MINE = '''
"""Every so many latents."""

from dataclasses import dataclass
from typing import Literal

from ddoq.options import PositiveInt
from ddoq.quantizers.base import Quantizer


@dataclass
class Every(Quantizer):
    """Latents at equal distances of their order.

    Args:
        stride: distance of two of them.
        direction: from where.
    """

    stride: PositiveInt = 3
    direction: Literal["start", "end"] = "start"

    def _centroids(self, cloud, generator):
        points = cloud.points if self.direction == "start" else cloud.points[::-1]
        return points[:: self.stride][: self.num_centroids]
'''
CHECK = """
import sys; sys.path.insert(0, "tests")
from support.runs import composed
from ddoq.config.checks import check
config = composed("quantizer=every", *sys.argv[1:])
print(config["quantizer"])
check(config)
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A copy with a quantizer more: two files, and its name where the package exports it."""
    folder = tmp_path_factory.mktemp("house")
    for part in ("ddoq", "conf", "tests/support"):
        copytree(ROOT / part, folder / part, ignore=ignore_patterns("__pycache__"))
    (folder / "ddoq/quantizers/every.py").write_text(MINE)
    exports = folder / "ddoq/quantizers/__init__.py"
    exports.write_text(exports.read_text() + "from ddoq.quantizers.every import Every\n")
    lines = "# Every third latent.\n_target_: ddoq.quantizers.Every\nname: every\nstride: 5\n"
    (folder / "conf/quantizer/every.yaml").write_text(lines)
    return folder


def python(house: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *words],
        cwd=house,
        env={"PYTHONPATH": str(house), "HOME": str(house)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_chosen_completed_and_checked(house):
    done = python(house, "-c", CHECK)
    assert done.returncode == 0, done.stderr
    assert "'stride': 5" in done.stdout and "'direction': 'start'" in done.stdout
    wrong = python(house, "-c", CHECK, "quantizer.stride=0", "+quantizer.direction=strat")
    assert "quantizer.stride: 0 is not positive" in wrong.stderr
    assert "quantizer.direction: 'strat' is not known" in wrong.stderr
    assert "did you mean 'start'?" in wrong.stderr


def test_its_file_is_completed_and_help_shows_it(house):
    assert python(house, "-m", "ddoq.config.write").returncode == 0
    assert (house / "conf/quantizer/every.yaml").read_text() == (
        "# Every third latent.\n_target_: ddoq.quantizers.Every\nname: every\n"
        "stride: 5  #: distance of two of them\n"
        "direction: start  #: from where: start or end\n"
    )
    shown = python(house, "-m", "ddoq.run", "help", "quantizer=every")
    assert shown.returncode == 0, shown.stderr
    words = " ".join(shown.stdout.split())
    assert "quantizer.stride 5 distance of two of them. (positive)" in words
    assert "quantizer.direction start from where. (one of start, end)" in words
