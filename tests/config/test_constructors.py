"""What is read from the source of a constructor is what Python sees when it is imported."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import MISSING as NONE
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any

import pytest

from ddoq.config.choices import COMPONENTS, constructors, files, targets
from ddoq.config.constructors import MISSING, Constructor, constructor
from ddoq.config.write import written
from ddoq.options import choices_of, range_of
from support.runs import ROOT

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
TARGETS = sorted({target for group in COMPONENTS for target in targets(group).values()})


def imported(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("target", TARGETS)
def test_options_and_defaults_are_those_of_the_class(target):
    kind, read = imported(target), constructor(target)
    parameters = {
        name: parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
        if "Given[" not in str(parameter.annotation) and parameter.kind in NAMED
    }
    if is_dataclass(kind):
        made = {f.name: f.default_factory for f in fields(kind) if f.default_factory is not NONE}
        parameters |= {name: make() for name, make in made.items() if name in parameters}
    of_stages = {name: option for name, option in read.options.items() if name not in parameters}
    assert set(parameters) <= set(read.options)
    assert all(hasattr(kind, name) for name in of_stages), "they stand in the class's body"
    for name, default in parameters.items():
        option = read.options[name]
        if default is inspect.Parameter.empty:
            # null until something decides it, or to be set
            assert option.default in (None, MISSING)
        elif isinstance(option.kind, Constructor):
            assert option.default == listed(vars(default))
        else:
            assert option.default == listed(default)


def listed(value: Any) -> Any:
    """Return plain data as YAML has them."""
    if isinstance(value, dict):
        return {name: listed(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("target", TARGETS)
def test_every_option_is_described(target):
    def undescribed(taken: Constructor):
        for name, option in taken.options.items():
            if not option.words:
                yield f"{taken.target}.{name}"
            if isinstance(option.kind, Constructor):
                yield from undescribed(option.kind)

    assert not list(undescribed(constructor(target)))


@pytest.mark.parametrize("group", COMPONENTS)
def test_files_show_all_options(group):
    for choice, taken in constructors(group).items():
        text = files(group)[choice].read_text(encoding="utf-8")
        assert text == written(text, taken), "make options writes it"


def test_choices_ranges_kinds_and_words_are_read():
    start = constructor("ddoq.quantizers.KMeans").options["start"]
    assert choices_of(start.annotation)[:2] == ("auto", "ward") and start.kind is str
    assert start.words.startswith("ward (a cut through") and start.words.endswith(
        "greedy k-means++."
    )
    strength = constructor("ddoq.generators.DiT").options["strength"]
    assert 1 in range_of(strength.annotation) and 0 not in range_of(strength.annotation)
    options = constructor("ddoq.generators.DiT").options
    assert options["order"].kind == options["path"].kind == str | None
    assert options["path"].default is None and options["scheduler"].kind == str | None
    assert {"encoder", "label_space"}.isdisjoint(options)
    assert constructor("ddoq.distillers.DM").options["rules"].kind == list[dict[str, Any]]
    fit = constructor("ddoq.encoders.VAE").options["fit"]
    assert fit.default["block_out_channels"] == [32, 64]
    assert constructor("ddoq.evaluation.protocol.Protocol").options["batch_size"].default == MISSING


def test_nothing_heavy_is_imported_to_read_all_constructors():
    code = (
        "import sys; from ddoq.config.choices import COMPONENTS, constructors; "
        "[constructors(group) for group in COMPONENTS]; "
        "print([m for m in ('torch', 'numpy', 'hydra', 'ddoq.students') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
