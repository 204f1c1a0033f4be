"""Where components may stand in a configuration, and that nothing else is ever instantiated.

Hydra would call whatever a ``_target_`` names, at any depth. So every one of them has to be a component of ddoq's, in
one of the places that are listed here, with the keys of its schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_type_hints

from ddoq.config.schema import COMPONENTS
from ddoq.errors import did_you_mean

#: Names become folders, columns of tables and text of pages.
_NAME = re.compile(r"\w[\w .,+=@-]{0,79}")
_ARM_KEYS = ("quantizer", "space", "allocation", "weighting", "generator", "redraw")

Problems = Iterator[tuple[str, str]]


def part_problems(config: Mapping[str, Any]) -> Problems:
    """Yield cause and remedy of every component that is none, of every key it has not, and of every unusable name."""
    places = list(_places(config))
    for path, group, part in places:
        yield from _part_problems(path, group, part)
    known = {path for path, _, _ in places}
    for path, target in _targets(config, ""):
        if path not in known:
            yield f"{path}._target_: '{target}' would be called here, where no component belongs", f"remove {path}"
    yield from _name_problems(config)


def _places(config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield path, group and configuration of every component."""
    for group in COMPONENTS:
        yield group, group, config[group]
    for name, arm in config["baselines"].items():
        for part in arm or ():
            if part in COMPONENTS:
                yield f"baselines.{name}.{part}", part, arm[part]
    for name, weighting in config["ablation"]["weightings"].items():
        yield f"ablation.weightings.{name}", "weighting", weighting
    for name, student in config["compare"]["students"].items():
        yield f"compare.students.{name}", "student", student
    for name, teacher in config["compare"]["teachers"].items():
        yield f"compare.teachers.{name}", "teacher", teacher
        yield from _inside(f"compare.teachers.{name}", teacher)
    yield from _inside("teacher", config["teacher"])


def _inside(path: str, teacher: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield the components that a teacher is made of."""
    if not isinstance(teacher, Mapping):
        return
    for group in ("student", "protocol"):
        if teacher.get(group) is not None:
            yield f"{path}.{group}", group, teacher[group]
    for name, member in (teacher.get("members") or {}).items():
        yield f"{path}.members.{name}", "teacher", member
        yield from _inside(f"{path}.members.{name}", member)


def _part_problems(path: str, group: str, part: Any) -> Problems:
    target = part.get("_target_") if isinstance(part, Mapping) else part
    schema = next((schema for schema in COMPONENTS[group].values() if schema._target_ == target), None)
    if schema is None:
        known = [schema._target_ for schema in COMPONENTS[group].values()]
        yield f"{path}._target_: '{target}' is not a known {group}", did_you_mean(str(target), known)
    else:
        yield from _unknown_fields(part, schema, path)


def _unknown_fields(part: Mapping[str, Any], schema: type, path: str) -> Problems:
    hints = get_type_hints(schema)
    for key, value in part.items():
        if key not in hints:
            yield f"{path}.{key}: there is no such key", did_you_mean(key, hints)
        elif is_dataclass(hints[key]) and isinstance(value, Mapping):
            yield from _unknown_fields(value, hints[key], f"{path}.{key}")


def _targets(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the path of every mapping that Hydra would take for something to call, and what it would call."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, Mapping) and "_target_" in value:
        yield path, value["_target_"]
    for key, inner in items:
        yield from _targets(inner, f"{path}.{key}" if path else str(key))


def _name_problems(config: Mapping[str, Any]) -> Problems:
    named = {f"{path}.name": part["name"] for path, _, part in _places(config) if _has_name(part)}
    named |= {"compare.name": config["compare"]["name"], "sweep.name": config["sweep"]["name"] or "none"}
    for place in ("baselines", "ablation.weightings", "compare.students", "compare.teachers", "teacher.members"):
        group, _, key = place.partition(".")
        names = config[group] if not key else config[group].get(key) or {}
        named |= {f"{place}.{name}": name for name in names}
    for path, name in named.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            yield f"{path}: {str(name)[:80]!r} is no name", "use up to 80 letters, digits, spaces and . , + = @ _ -"
    for name, arm in config["baselines"].items():
        for key in arm or ():
            if key not in _ARM_KEYS:
                yield f"baselines.{name}.{key}: there is no such key", did_you_mean(key, _ARM_KEYS)


def _has_name(part: Any) -> bool:
    return isinstance(part, Mapping) and "name" in part
