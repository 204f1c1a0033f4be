"""``ddoq help GROUP`` and ``ddoq help GROUP=CHOICE``: what there is, and the options it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from ddoq.config.choices import files
from ddoq.config.constructors import MISSING, Constructor, Option, constructor
from ddoq.errors import ConfigError, did_you_mean
from ddoq.options import range_of


def show_group(group: str, console: Console) -> None:
    """Print what can be chosen of a group, each with the first line of its file."""
    table = _table("choice", "what it is")
    for choice, file in files(group).items():
        table.add_row(choice, escape(_head(file).partition(". ")[0].removesuffix(".")))
    console.print(f"[bold]{group}[/]\n", table, f"\nddoq help {group}=CHOICE shows one of them.")


def show_choice(group: str, choice: str, console: Console) -> None:
    """Print what a choice is and its options.

    Raises:
        ConfigError: there is no such choice.
    """
    if choice not in files(group):
        cause = f"{group}: there is no '{choice}'"
        raise ConfigError(cause, did_you_mean(choice, files(group)))
    file = files(group)[choice]
    console.print(f"[bold]{group}={choice}[/]\n{escape(_head(file))}\n")
    values = _values(group, choice)
    if "_target_" in values:
        console.print(_options(group, constructor(values["_target_"]), values))
    console.print(f"[dim]{escape(str(file))}[/]", soft_wrap=True)


def _options(group: str, taken: Constructor, values: Mapping[str, Any]) -> RenderableType:
    table = _table("option", "default", "what it is")
    for name, option, value in _rows(taken, values):
        table.add_row(f"{group}.{name}", escape(_in_yaml(value)), escape(_about(option)))
    about = f"{escape(taken.words)} [dim]({taken.target})[/]\n"
    return Group(about, table, "") if table.rows else Group(about)


def _rows(
    taken: Constructor, values: Mapping[str, Any], place: str = ""
) -> Iterator[tuple[str, Option, Any]]:
    """Yield dotted name, option and value of every option, those of groups behind the group."""
    for name, option in taken.options.items():
        value = values.get(name, option.default)
        if isinstance(option.kind, Constructor):
            yield from _rows(option.kind, value, f"{place}{name}.")
        elif name != "name":
            yield f"{place}{name}", option, value


def _about(option: Option) -> str:
    """Return what an option is, and what it may be where its words do not say so."""
    choices, bounds = option.choices, range_of(option.annotation)
    if bounds:
        return f"{option.words} ({bounds.words})"
    if all(choice in option.words for choice in choices):
        return option.words
    return f"{option.words} (one of {', '.join(choices)})"


def _values(group: str, choice: str) -> dict[str, Any]:
    """Return what a choice's file says, and those that it takes over from."""
    content = yaml.safe_load(files(group)[choice].read_text(encoding="utf-8")) or {}
    defaults = content.pop("defaults", [])
    inherited = [name for name in defaults if isinstance(name, str) and name in files(group)]
    own = content.get(group, content)
    return _merged(*(_values(group, name) for name in inherited), own)


def _merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            both = isinstance(value, Mapping) and isinstance(whole.get(name), Mapping)
            whole[name] = _merged(whole[name], value) if both else value
    return whole


def _head(file: Path) -> str:
    """Return the comment at the head of a file."""
    lines = file.read_text(encoding="utf-8").splitlines()
    comments = takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.lstrip("# ") for line in comments if "@package" not in line)


def _in_yaml(value: Any) -> str:
    if value == MISSING:
        return "(to be set)"
    if isinstance(value, list) and len(value) > 2:
        return f"{len(value)} items"
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.strip().removesuffix("...").strip()


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
