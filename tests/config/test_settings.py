"""The sections of a configuration as objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ddoq.config.schema import RunConf
from ddoq.config.settings import measure_of, paths_of, run_of, trainer_of
from ddoq.utils.paths import expand_paths
from support.runs import composed


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return composed(
        *("run.until=label", "run.from=encode", "run.quiet=true"),
        *("paths.data=/a", "paths.models=[/b,c]", "paths.outputs='~/out'"),
        *("trainer.batch_size=3", "measure.curve=[1,2]", "measure.fidelity=true"),
    )


def test_every_key_of_run_arrives(config):
    run = run_of(config)
    assert (run.until, run.from_stage, run.quiet) == ("label", "encode", True)
    assert not (run.plan_only or run.fetch)
    assert run_of({"run": config["run"] | {"plan_only": True}}).plan_only
    assert run_of({"run": config["run"] | {"fetch": True}}).fetch
    assert "from" in config["run"], "the section itself stays as it is"


def test_the_schema_of_run_is_what_the_file_says(config):
    assert set(config["run"]) == set(RunConf.__annotations__)


def test_paths_are_folders_whether_one_or_several_were_given(config):
    paths = paths_of(expand_paths(config))
    assert paths.data == (Path("/a"),)
    assert paths.models == (Path("/b"), Path("c"))
    assert paths.store == Path.home() / "out" / "store"


def test_trainer_and_measure_keep_every_value(config):
    trainer, measure = trainer_of(config), measure_of(config)
    assert vars(trainer) == config["trainer"] and trainer.batch_size == 3
    assert vars(measure) == config["measure"] and measure.curve == [1, 2]
