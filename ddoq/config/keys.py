"""The dotted keys that there are, for those who look for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_type_hints

from ddoq.config.choices import COMPONENTS, constructors
from ddoq.config.constructors import Constructor, constructor
from ddoq.config.form import ROOT
from ddoq.config.schema import RunConf


def known_keys() -> list[str]:
    """Return every dotted key a user can set, for suggestions."""
    keys = set(_dotted(constructor(ROOT), "")) | {f"run.{key}" for key in get_type_hints(RunConf)}
    for group in COMPONENTS:
        keys |= {key for taken in constructors(group).values() for key in _dotted(taken, group)}
    return sorted(keys)


def choices_with(key: str) -> list[str]:
    """Return the choices, as ``group=choice``, that have a dotted key."""
    group = key.split(".")[0]
    choices = constructors(group).items() if group in COMPONENTS else ()
    return [f"{group}={name}" for name, taken in choices if key in _dotted(taken, group)]


def _dotted(taken: Constructor, place: str) -> Iterator[str]:
    for name, option in taken.options.items():
        key = f"{place}.{name}" if place else name
        yield key
        if isinstance(option.kind, Constructor):
            yield from _dotted(option.kind, key)
