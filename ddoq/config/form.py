"""The form of a configuration: which keys there are, and what kind of value each of them takes.

Hydra holds the values of a group to its schema. It does not for what a dictionary may hold (the arms of ``baselines``,
the students of ``compare``), for whole groups that are deleted or replaced, and for numbers that are none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ddoq.config.schema import COMPONENTS, Config
from ddoq.errors import ConfigError, did_you_mean

Problems = Iterator[tuple[str, str]]

RUN = {"until": str, "from": str | None, "plan_only": bool, "fetch": bool, "quiet": bool}
RUN_KEYS = tuple(RUN)

#: An arm of ``baselines``: what it is made of, and what it may have besides.
_PARTS, _OPTIONS = ("quantizer", "weighting", "generator"), {"allocation": str, "redraw": bool}
_KINDS = {int: "a whole number", float: "a finite number", str: "UTF-8 text", bool: "true or false", NoneType: "null"}
_NAME = re.compile(r"\w[\w.+ -]{0,79}")
_hints = cache(get_type_hints)


def check_form(config: Mapping[str, Any], without: tuple[str, ...] = ()) -> None:
    """Raise ConfigError where a resolved configuration lacks a key, has one too many, or a value of another kind.

    Args:
        config: resolved.
        without: sections that are not looked at.
    """
    complain(form_problems(config, without))


def complain(problems: Problems) -> None:
    """Raise one ConfigError that names all problems, if there are any."""
    if found := list(dict.fromkeys(problems)):
        raise ConfigError("; ".join(cause for cause, _ in found), "; ".join(dict.fromkeys(part for _, part in found)))


def form_problems(config: Mapping[str, Any], without: tuple[str, ...] = ()) -> Problems:
    """Yield cause and remedy of every problem of form; ``without``: sections that are not looked at."""
    known = [field.name for field in fields(Config)]
    for key in config:
        if key not in known and key not in without:  # `+foo=1` passes Hydra, and nothing would ever read it
            yield f"{key}: there is no such key", did_you_mean(key, [*known, "+experiment"])
    for key in known:
        if key in without:
            continue
        if _is_missing(config, key):
            yield f"{key}: no value", f"{key} is needed: do not delete it"
        elif key in COMPONENTS:
            yield from _component(config[key], key, key)
        else:
            yield from _section(key, config[key], config)


def _section(key: str, value: Any, config: Mapping[str, Any]) -> Problems:
    """Check what is no component of its own, and the components in it."""
    found = list(_value(value, _hints(Config)[key], key))
    yield from found
    if found:
        return
    if key == "run":
        yield from _entries(value, RUN, key)
    elif key == "baselines":
        for name, arm in value.items():
            yield from _arm(arm, f"{key}.{name}", config)
    for part, group in _held(key):
        for name, one in value[part].items():
            yield from _component(one, group, f"{key}.{part}.{name}")
    if key == "paths":
        for part in ("data", "models"):
            folders = [value[part]] if isinstance(value[part], str) else value[part]
            if not folders or not _fits(folders, list[str]):
                yield f"paths.{part}: {folders!r} is no folder and no list of folders", f"set paths.{part}=/a/folder"


def _held(key: str) -> list[tuple[str, str]]:
    """Return the dictionaries of components in a section, each with the components' group."""
    of_compare, of_ablation = [("students", "student"), ("teachers", "teacher")], [("weightings", "weighting")]
    return {"compare": of_compare, "ablation": of_ablation}.get(key, [])


def components(config: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield dotted path, group and configuration of every component, those of arms and comparisons included.

    The configuration has passed ``check_form``.
    """
    for group in COMPONENTS:
        yield from _with_inner(group, group, config[group])
    for name, arm in config["baselines"].items():
        for part in (*_PARTS, "space"):
            if part in arm and not _is_the_mains(arm, part, config):
                yield f"baselines.{name}.{part}", part, arm[part]
    for key in ("compare", "ablation"):
        for part, group in _held(key):
            for name, one in config[key][part].items():
                yield from _with_inner(f"{key}.{part}.{name}", group, one)


def _with_inner(path: str, group: str, part: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    yield path, group, part
    for key, inner, one in _inside(part) if group == "teacher" else ():
        yield from _with_inner(f"{path}.{key}", inner, one)


def _inside(teacher: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield key, group and value of the components that a teacher is made of."""
    for key in ("student", "protocol"):
        if teacher.get(key) is not None:
            yield key, key, teacher[key]
    for name, member in teacher.get("members", {}).items():
        yield f"members.{name}", "teacher", member


def _is_the_mains(arm: Mapping[str, Any], part: str, config: Mapping[str, Any]) -> bool:
    """Tell whether an arm takes a part over from the configuration, whose problems need not be said twice."""
    return repr(arm[part]) == repr(config.get(part))  # in which NaN equals itself


def _arm(arm: Any, path: str, config: Mapping[str, Any]) -> Problems:
    """Check an arm of ``baselines``; an empty one is the full data."""
    if not isinstance(arm, Mapping):
        yield f"{path}: {arm!r} is no arm", f"give it {', '.join(_PARTS)}; {{}} is the full data"
        return
    for part in (*_PARTS, "space") if arm else ():
        if part in arm:
            yield from _component(arm[part], part, f"{path}.{part}") if not _is_the_mains(arm, part, config) else ()
        elif part in _PARTS:
            yield f"{path}.{part}: no value", f"+{part}@{path}.{part}=... chooses one"
    others = {key: value for key, value in arm.items() if key not in (*_PARTS, "space")}
    yield from _entries(others, _OPTIONS, path, complete=False)


def _component(part: Any, group: str, path: str) -> Problems:
    if not isinstance(part, Mapping):
        yield f"{path}: {part!r} is no {group}", f"choose one: {path}=..." if path == group else f"+{group}@{path}=..."
        return
    targets = {schema._target_: schema for schema in COMPONENTS[group].values()}
    schema = targets.get(str(part.get("_target_")))
    if schema is None:
        yield (
            f"{path}._target_: '{part.get('_target_')}' is not a known {group}",
            did_you_mean(str(part.get("_target_")), targets),
        )
        return
    found = list(_entries(part, _hints(schema), path))
    yield from found
    if not found and not _NAME.fullmatch(part["name"]):
        yield f"{path}.name: {part['name']!r} cannot name a folder", "use up to 80 letters, digits, '_', '-', '.', '+'"
    for key, inner, one in _inside(part) if group == "teacher" and not found else ():
        yield from _component(one, inner, f"{path}.{key}")


def _entries(part: Mapping[str, Any], hints: Mapping[str, Any], path: str, complete: bool = True) -> Problems:
    """Check the keys of a mapping, of which all have to be there if it is to be ``complete``, and their values."""
    for key in part:
        if key not in hints:
            yield f"{path}.{key}: there is no such key", did_you_mean(str(key), hints)
    for key, hint in hints.items():
        if not _is_missing(part, key):
            yield from _value(part[key], hint, f"{path}.{key}")
        elif complete:
            yield f"{path}.{key}: no value", f"set {path}.{key}=..."


def _is_missing(part: Mapping[str, Any], key: str) -> bool:
    return key not in part or (isinstance(part[key], str) and part[key] == "???")


def _value(value: Any, hint: Any, path: str) -> Problems:
    if is_dataclass(hint) and isinstance(value, Mapping):
        yield from _entries(value, _hints(hint), path)
    elif get_origin(hint) is list and isinstance(value, list) and is_dataclass(get_args(hint)[0]):
        for number, item in enumerate(value):
            yield from _value(item, get_args(hint)[0], f"{path}.{number}")
    elif not _fits(value, hint):
        yield f"{path}: {value!r} is not {_kind(hint)}", f"set {path} to {_kind(hint)}"


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a kind: of one of those that the schemas use."""
    if isinstance(hint, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(item, get_args(hint)[0]) for item in value)
    if get_origin(hint) is dict:
        return isinstance(value, Mapping)
    if hint is Any:
        return True
    if hint is str:
        return isinstance(value, str) and "\0" not in value and value.encode(errors="ignore").decode() == value
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not is_dataclass(hint) and isinstance(value, hint)


def _kind(hint: Any) -> str:
    """Return the words for a kind of value."""
    if isinstance(hint, UnionType):
        return " or ".join(_kind(one) for one in get_args(hint))
    if get_origin(hint) is list:
        return "a list" if get_args(hint)[0] is Any else f"a list, each item {_kind(get_args(hint)[0])}"
    return _KINDS.get(hint, "a group of keys")
