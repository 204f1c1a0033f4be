"""Where components may stand in a configuration, that nothing else is ever called,
and what they may be named.

Hydra would call whatever a ``_target_`` names, at any depth. So every ``_target_`` has to be a
component of ddoq's, in one of the places that are listed here, and nowhere else is it looked at.
Which keys and kinds of values a component takes is ``ddoq.config.form``'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ddoq.config.arms import ARM_PARTS
from ddoq.config.choices import COMPONENTS, OPTIONAL, constructor_of, targets
from ddoq.errors import did_you_mean

Problems = Iterator[tuple[str, str]]
Places = Iterator[tuple[str, str, Any]]

#: Names become folders, columns of tables and text of pages.
_NAME = re.compile(r"\w[\w .,+=@-]{0,79}")
#: Sections with dictionaries of components, and the components' group.
_DICTIONARIES = (
    ("ablation", "weightings", "weighting"),
    ("compare", "students", "student"),
    ("compare", "teachers", "teacher"),
)
#: Components that others are made of, by the group of these.
_INNER = {"teacher": ("student", "protocol"), "selection": ("space",)}


def part_problems(config: Mapping[str, Any]) -> Problems:
    """Yield cause and remedy of whatever would be called and is no component of its place,
    and of unusable names.
    """
    for path, group, part in components(config):
        if not isinstance(part, Mapping):
            choice = f"{path}=..." if path == group else f"+{group}@{path}=..."
            yield f"{path}: {part!r} is no {group}", f"choose one: {choice}"
        elif constructor_of(group, part) is None:
            target, there = str(part.get("_target_")), targets(group).values()
            yield f"{path}._target_: '{target}' is not a known {group}", did_you_mean(target, there)
    component_paths = {path for path, _, _ in places(config)}
    for path, target in _targets(config, ""):
        if path not in component_paths:
            yield (
                f"{path}._target_: '{target}' would be called here, where no component belongs",
                f"remove {path}",
            )
    for path, name in _names(config):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            yield (
                f"{path}: {str(name)[:80]!r} is no name",
                "use up to 80 letters, digits, spaces and . , + = @ _ -",
            )


def places(config: Mapping[str, Any]) -> Places:
    """Yield every place where a component belongs, with what is there."""
    for group in COMPONENTS:
        if not is_missing(config, group) and not _is_none(config[group], group):
            yield from _with_inner(group, group, config[group])
    for name, arm in _entries(config, "baselines"):
        for part in ARM_PARTS:
            if isinstance(arm, Mapping) and part in arm and not _is_none(arm[part], part):
                yield from _with_inner(f"baselines.{name}.{part}", part, arm[part])
        for other, guidance in _entries(arm, "guidances"):
            yield f"baselines.{name}.guidances.{other}", "guidance", guidance
    for name, guidance in _entries(config, "guidances"):
        yield f"guidances.{name}", "guidance", guidance
    for section, key, group in _DICTIONARIES:
        for name, component in _entries(config.get(section), key):
            yield from _with_inner(f"{section}.{key}.{name}", group, component)
    measure = config.get("measure")
    if isinstance(measure, Mapping) and measure.get("space") is not None:
        yield "measure.space", "space", measure["space"]


def components(config: Mapping[str, Any]) -> Places:
    """Yield dotted path, group and configuration of every component,
    those of arms and comparisons included.

    What an arm takes over from the configuration is left out: its problems need not be said twice.
    """
    for path, group, part in places(config):
        # Compared by their text, in which NaN equals itself.
        if not path.startswith("baselines.") or repr(part) != repr(config.get(group)):
            yield path, group, part


def is_missing(part: Mapping[str, Any], key: str) -> bool:
    """Tell whether there is no value, or OmegaConf's word for none."""
    return key not in part or (isinstance(part[key], str) and part[key] == "???")


def _is_none(part: Any, group: str) -> bool:
    """Tell whether nothing was chosen of a group of which nothing has to be."""
    return group in OPTIONAL and (part is None or part == {})


def _with_inner(path: str, group: str, part: Any) -> Places:
    """Yield a component and those that it is made of."""
    yield path, group, part
    if not isinstance(part, Mapping):
        return
    for inner in _INNER.get(group, ()):
        if part.get(inner) is not None:
            yield f"{path}.{inner}", inner, part[inner]
    for name, member in _entries(part, "members") if group == "teacher" else ():
        yield from _with_inner(f"{path}.members.{name}", "teacher", member)


def _entries(part: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a dictionary, if it is one."""
    inner = part.get(key) if isinstance(part, Mapping) else None
    yield from inner.items() if isinstance(inner, Mapping) else ()


def _targets(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the path of every mapping that Hydra would take for something to call,
    and what it would call.
    """
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
        if "_target_" in value:
            yield path, value["_target_"]
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield from _targets(inner, f"{path}.{key}" if path else str(key))


def _names(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every name that the configuration gives, with its path."""
    named = [*components(config), *((key, key, config.get(key)) for key in ("compare", "sweep"))]
    for path, _, part in named:
        if (
            isinstance(part, Mapping)
            and isinstance(part.get("name"), str)
            and not is_missing(part, "name")
        ):
            yield f"{path}.name", part["name"]
    for section, key, _ in _DICTIONARIES:
        yield from (
            (f"{section}.{key}.{name}", name) for name, _ in _entries(config.get(section), key)
        )
    yield from ((f"baselines.{name}", name) for name, _ in _entries(config, "baselines"))
    yield from (
        (f"teacher.members.{name}", name) for name, _ in _entries(config.get("teacher"), "members")
    )
