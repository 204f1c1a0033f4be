"""What choices and ranges say: those that constructors and sections annotate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from ddoq.config.arms import OPTIONS
from ddoq.config.choices import COMPONENTS, constructor_of
from ddoq.config.constructors import Constructor, constructor
from ddoq.config.form import ROOT
from ddoq.config.parts import components
from ddoq.options import breaches

Problems = Iterator[tuple[str, str]]


def limit_problems(config: Mapping[str, Any]) -> Problems:
    """Yield cause and remedy of every value outside its choices or its range."""
    sections = {name: part for name, part in config.items() if name not in COMPONENTS}
    yield from _breaches(sections, constructor(ROOT), "")
    for name, arm in config["baselines"].items():
        for option, annotation in OPTIONS.items():
            yield from breaches(arm.get(option), annotation, f"baselines.{name}.{option}")
    for path, group, part in components(config):
        if taken := constructor_of(group, part):
            yield from _breaches(part, taken, f"{path}.")


def _breaches(part: Mapping[str, Any], taken: Constructor, prefix: str) -> Problems:
    for name, option in taken.options.items():
        value, inner = part.get(name), next(iter(get_args(option.annotation)), None)
        if isinstance(option.annotation, Constructor) and isinstance(value, Mapping):
            yield from _breaches(value, option.annotation, f"{prefix}{name}.")
        elif isinstance(inner, Constructor):
            for number, item in enumerate(value):
                yield from _breaches(item, inner, f"{prefix}{name}.{number}.")
        else:
            yield from breaches(value, option.annotation, f"{prefix}{name}")
