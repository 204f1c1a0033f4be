"""The form of a configuration: which keys there are, and what kind of value each of them takes.

Hydra holds the sections of the root to their schema. It does not for what a dictionary may hold,
components for instance, for whole groups that are deleted or replaced, and for numbers that are
none. What is a component, where one may stand and how it may be called is in ``ddoq.config.parts``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ddoq.config.arms import ARM_PARTS, NEEDED, OPTIONS, PUSHED, is_full, is_method
from ddoq.config.choices import COMPONENTS, constructor_of
from ddoq.config.constructors import Constructor, constructor, plain
from ddoq.config.parts import Problems, components, is_missing, part_problems
from ddoq.config.schema import RunConf
from ddoq.errors import ConfigError, did_you_mean

_KINDS = {
    int: "a whole number",
    float: "a finite number",
    str: "UTF-8 text",
    bool: "true or false",
    NoneType: "null",
}
#: The root of the configuration.
ROOT = "ddoq.config.schema.Config"
#: What every component has beside its options. ``name`` is what tables say.
_OF_COMPONENTS = {"name": str, "_target_": str}


def check_form(config: Mapping[str, Any], without: tuple[str, ...] = ()) -> None:
    """Raise ConfigError where a resolved configuration lacks a key, has one too many,
    or a value of another kind.

    Args:
        config: resolved.
        without: sections that are not looked at.
    """
    complain(form_problems(config, without))


def complain(problems: Problems) -> None:
    """Raise one ConfigError that names all problems, if there are any."""
    if distinct := list(dict.fromkeys(problems)):
        raise ConfigError(
            "; ".join(cause for cause, _ in distinct),
            "; ".join(dict.fromkeys(part for _, part in distinct)),
        )


def form_problems(config: Mapping[str, Any], without: tuple[str, ...] = ()) -> Problems:
    """Yield cause and remedy of every problem of form;
    ``without``: sections that are not looked at.
    """
    yield from part_problems(config)
    keys = list(constructor(ROOT).options)
    for key in config:
        # `+foo=1` passes Hydra, and nothing would ever read it.
        if key not in keys and key not in without:
            yield f"{key}: there is no such key", did_you_mean(key, [*keys, "+experiment"])
    for key in keys:
        if key in without:
            continue
        if is_missing(config, key):
            yield f"{key}: no value", f"{key} is needed: do not delete it"
        elif key not in COMPONENTS:
            yield from _section(key, config[key])
    for path, group, part in components(config):
        if taken := constructor_of(group, part):
            yield from _entries(part, _OF_COMPONENTS | taken.kinds(), path)


def _section(key: str, value: Any) -> Problems:
    """Check what is no component of its own."""
    problems = list(_value(value, constructor(ROOT).options[key].kind, key))
    yield from problems
    if problems:
        return
    if key == "run":
        yield from _entries(value, get_type_hints(RunConf), key)
    elif key == "baselines":
        for name, arm in value.items():
            yield from _arm(arm, f"{key}.{name}")
    elif key == "paths":
        for part in ("data", "models"):
            folders = [value[part]] if isinstance(value[part], str) else value[part]
            if not folders or not _fits(folders, list[str]):
                yield (
                    f"paths.{part}: {folders!r} is no folder and no list of folders",
                    f"set paths.{part}=/a/folder",
                )


def _arm(arm: Any, path: str) -> Problems:
    """Check an arm of ``baselines``: the full data, points that are pushed forward, or a method."""
    if not isinstance(arm, Mapping):
        remedy = f"give it {', '.join(NEEDED)}, or a method; {{}} is the full data"
        yield f"{path}: {arm!r} is no arm", remedy
        return
    options = {key: value for key, value in arm.items() if key not in ARM_PARTS}
    allowed = {name: plain(annotation) for name, annotation in OPTIONS.items()}
    yield from _entries(options, allowed, path, complete=False)
    points = [part for part in PUSHED if part in arm]
    if is_method(arm) and points:
        yield (
            f"{path}: a method and {', '.join(points)}, and an arm is one or the other",
            f"leave out {path}.method, or the rest; a row of its own is +arm@baselines.NAME=ARM",
        )
    if is_full(arm) or is_method(arm):
        return
    for part in NEEDED:
        if part not in arm:
            yield f"{path}.{part}: no value", f"+{part}@{path}.{part}=... chooses one"


def _entries(
    part: Mapping[str, Any], hints: Mapping[str, Any], path: str, complete: bool = True
) -> Problems:
    """Check the keys of a mapping, of which all have to be there if it is to be ``complete``,
    and their values.
    """
    for key in part:
        if key not in hints:
            yield f"{path}.{key}: there is no such key", did_you_mean(str(key), hints)
    for key, hint in hints.items():
        if not is_missing(part, key):
            yield from _value(part[key], hint, f"{path}.{key}")
        elif complete:
            yield f"{path}.{key}: no value", f"set {path}.{key}=..."


def _value(value: Any, hint: Any, path: str) -> Problems:
    inner = next(iter(get_args(hint)), None)
    if isinstance(hint, Constructor) and isinstance(value, Mapping):
        yield from _entries(value, hint.kinds(), path)
    elif isinstance(inner, Constructor) and isinstance(value, list):
        for number, item in enumerate(value):
            yield from _value(item, inner, f"{path}.{number}")
    elif not _fits(value, hint):
        yield f"{path}: {value!r} is not {kind(hint)}", f"set {path} to {kind(hint)}"


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a kind: of one of those that options have."""
    if isinstance(hint, UnionType):
        return any(_fits(value, alternative) for alternative in get_args(hint))
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(item, get_args(hint)[0]) for item in value)
    if get_origin(hint) is dict:
        return isinstance(value, Mapping)
    if hint is Any:
        return True
    if hint is str:
        return (
            isinstance(value, str)
            and "\0" not in value
            and value.encode(errors="ignore").decode() == value
        )
    if hint is float:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
        )
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(hint, Constructor) and isinstance(value, hint)


def kind(hint: Any) -> str:
    """Return the words for a kind of value."""
    if isinstance(hint, UnionType):
        return " or ".join(kind(alternative) for alternative in get_args(hint))
    if get_origin(hint) is list:
        return (
            "a list" if get_args(hint)[0] is Any else f"a list, each item {kind(get_args(hint)[0])}"
        )
    return "a group of keys" if isinstance(hint, Constructor) else _KINDS[hint]
