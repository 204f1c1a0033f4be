"""The dotted keys that the schemas have, for those who look for one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import get_type_hints

from ddoq.config.form import hints_of
from ddoq.config.schema import COMPONENTS, Config, RunConf


def known_keys() -> list[str]:
    """Return every dotted key a user can set, for suggestions."""
    keys = set(_dotted(Config, "")) | {f"run.{key}" for key in hints_of(RunConf)}
    for group, choices in COMPONENTS.items():
        keys |= {key for schema in choices.values() for key in _dotted(schema, f"{group}.")}
    return sorted(keys)


def choices_with(key: str) -> list[str]:
    """Return the choices, as ``group=choice``, that have a dotted key."""
    group = key.split(".")[0]
    choices = COMPONENTS.get(group, {}).items()
    return [f"{group}={name}" for name, schema in choices if key in _dotted(schema, f"{group}.")]


def _dotted(schema: type, prefix: str) -> Iterator[str]:
    for name, hint in get_type_hints(schema).items():
        yield prefix + name
        if is_dataclass(hint):
            yield from _dotted(hint, f"{prefix}{name}.")
