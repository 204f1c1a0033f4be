"""Keys of every node of the experiments and studies as they were:
stores that were written before stay hits.

A node that has to change is written anew, and the commit says which and why:
``PYTHONPATH=tests python tests/experiment/test_keys.py``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from ddoq.config.names import run_name
from ddoq.experiment import Experiment
from ddoq.pipeline.graph import unique
from ddoq.pipeline.keys import digest
from support.runs import ROOT, composed

GOLDEN = ROOT / "tests" / "support" / "golden_keys.json"
EXPERIMENTS = sorted(file.stem for file in (ROOT / "conf" / "experiment").glob("*.yaml"))
STUDIES = sorted(
    file.stem for file in (ROOT / "conf" / "study").glob("*.yaml") if file.stem != "common"
)
#: All studies on one data set, and on the others those whose rows are in the documents.
COMPOSITIONS = [
    *((f"+experiment={name}",) for name in EXPERIMENTS),
    *(("+experiment=fashion_mnist", f"+study={name}") for name in STUDIES),
    *(
        (f"+experiment={name}", f"+study={study}")
        for name in ("cifar10", "imagenette128")
        for study in ("headline",)
    ),
    ("+experiment=cifar10", "+study=teachers"),
]


class StandIns:
    """What stands for pretrained weights where there are none: their names."""

    def identify(self, conf: Mapping[str, Any], key: str) -> str | None:
        """See ``ddoq.experiment.models.Models.identify``."""
        return conf["path"] or conf.get("model")


def keys_of(*overrides: str) -> dict[str, Any]:
    """Return the name of a run's folder and, for each stage,
    the number of its nodes and a digest of their keys.
    """
    config = {name: part for name, part in composed(*overrides).items() if name != "hydra"}
    experiment = Experiment(config, "fingerprint", StandIns())
    keys: dict[str, list[str]] = {}
    for node in unique(experiment.targets("report")):
        keys.setdefault(node.stage, []).append(node.key)
    return {"run": run_name(config)} | {
        stage: f"{len(of_stage)} {digest(sorted(of_stage))}" for stage, of_stage in keys.items()
    }


@pytest.mark.parametrize("overrides", COMPOSITIONS, ids=" ".join)
def test_keys_are_as_they_were(overrides):
    assert keys_of(*overrides) == json.loads(GOLDEN.read_text())[" ".join(overrides)]


def test_every_composition_of_before_is_still_looked_at():
    assert {" ".join(overrides) for overrides in COMPOSITIONS} == set(
        json.loads(GOLDEN.read_text())
    )


if __name__ == "__main__":
    golden = {" ".join(overrides): keys_of(*overrides) for overrides in COMPOSITIONS}
    GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(f"{len(golden)} compositions in {GOLDEN}\n")
