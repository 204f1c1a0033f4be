"""What Hydra says of a configuration, in our two lines."""

from __future__ import annotations

import pytest
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException

from ddoq.config.explain import explain
from support.runs import composition


@pytest.mark.parametrize(
    ("override", "group", "choice", "extra"),
    [
        ("launcher=slurm", "launcher", "submitit_slurm", "slurm"),
        ("launcher=joblib", "launcher", "joblib", "slurm"),
        ("search=strength", "sweeper", "optuna", "search"),
    ],
)
def test_what_an_extra_brings_names_the_extra_where_it_is_not_installed(
    override: str, group: str, choice: str, extra: str, monkeypatch
):
    composition(override)  # it is installed here, so Hydra knows its plugin
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"][group], f"{choice}.yaml")
    with pytest.raises(HydraException) as caught:
        composition(override)
    error = explain(caught.value)
    assert f"extra '{extra}'" in error.cause and choice in error.cause
    assert f"pip install 'ddoq[{extra}]'" in error.remedy
