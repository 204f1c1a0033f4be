"""Words of the command line that Hydra cannot read, or reads as something else,
and how they have to be typed.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Quote, QuotedString
from hydra.errors import HydraException

from ddoq.config.choices import COMPONENTS, OPTIONAL, constructors, groups
from ddoq.config.constructors import Constructor, constructor
from ddoq.config.form import ROOT, kind
from ddoq.config.keys import known_keys
from ddoq.config.schema import RunConf
from ddoq.errors import ConfigError, did_you_mean
from ddoq.utils.paths import is_path

_LISTS = ("paths.data", "paths.models")  # or one folder


def check_overrides(arguments: Sequence[str]) -> None:
    """Raise ConfigError for the first argument that is no flag, no override, or read as another."""
    flags = get_args_parser()
    flags.error = _no_flag
    parser = OverridesParser.create()
    for word in flags.parse_args(arguments).overrides:
        key, text = split(word)
        try:
            override = parser.parse_override(word)
            value = override.value()
        except HydraException as error:
            raise ConfigError(*_unreadable(word)) from error
        if key in groups() and not override.is_delete():
            _check_choice(word, key, value)
        if isinstance(value, int | float) and str(value) != text and _is_only_text(key):
            raise ConfigError(f"{key}: Hydra reads {text} as {value}", f"quote it: {quoted(word)}")


def _check_choice(word: str, group: str, value: Any) -> None:
    """Raise ConfigError where a group's choice is no name, or an arm gets no row of its own."""
    choices = value.list if isinstance(value, ChoiceSweep) else [value]
    if group == "arm" and not re.match(r"\+*arm@baselines\.\w", word):
        place = word.partition("=")[0].partition("@")[2]
        row = place.rpartition(".")[2] if "." in place else choices[0]
        remedy = f"write +arm@baselines.{row}={choices[0]}"
        raise ConfigError("arm: an arm is a row of baselines, and needs its name", remedy)
    for choice in choices:
        if choice is None and group in OPTIONAL:
            raise ConfigError(f"{group}: null is no choice", f"~{group} chooses none")
        if choice is None or isinstance(choice, int | float):
            raise ConfigError(f"{group}: {choice} is no choice", "`ddoq --help` lists the choices")


def _no_flag(message: str) -> NoReturn:
    unknown = message.removeprefix("unrecognized arguments: ").split()[0]
    key = unknown.lstrip("-").partition("=")[0]
    if not message.startswith("unrecognized"):
        raise ConfigError(f"command line: {message}", "`ddoq --hydra-help` lists the flags")
    raise ConfigError(
        f"{unknown}: there is no such flag", f"keys are written without dashes: {key}=..."
    )


def _unreadable(word: str) -> tuple[str, str]:
    """Return cause and remedy for an override outside Hydra's grammar."""
    key, text = split(word)
    if "=" not in word:
        write = (
            f"{word}=..." if key in known_keys() or key in COMPONENTS else "key=value, e.g. ipc=5"
        )
        return (
            f"'{word}' is no override and no command",
            f"write {write}; `ddoq --help` lists keys and commands",
        )
    if not key.isascii():
        return f"{key}: there is no such key", did_you_mean(key, known_keys())
    if kinds := [kind(hint) for hint in hints(key) if str not in (hint, *get_args(hint))]:
        return f"{key}: {text} cannot be read", f"set {key} to {' or '.join(dict.fromkeys(kinds))}"
    return f"{key}: Hydra cannot read {text} as it stands", f"type it so: {quoted(word)}"


def several_values(word: str) -> ConfigError:
    """Return the error for values with commas between them, where one run was asked for."""
    key, text = split(word)
    if key in _LISTS or any(get_origin(hint) is list for hint in hints(key)):
        return ConfigError(
            f"{key}: a list needs brackets", f"type it so: {shlex.quote(f'{key}=[{text}]')}"
        )
    if is_path(key):
        remedy = f"for one path with a comma: {quoted(word)}; to run one after the other, add -m"
        return ConfigError(f"{word}: several values", remedy)
    return ConfigError(f"{word}: several values", "add -m to run one after the other")


def split(word: str) -> tuple[str, str]:
    """Return the dotted key of an override and the text of its value."""
    key, _, text = word.partition("=")
    return key.lstrip("+~").partition("@")[0], text


def quoted(word: str) -> str:
    """Return an override with its value quoted for Hydra, and the whole for a shell."""
    key, _, text = word.partition("=")
    # Somebody tried, and quotes inside ended it.
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    override = f"{key}={QuotedString(text, Quote.double).with_quotes()}"
    if override.isprintable() and "  " not in override:  # what an error shows as it is
        return shlex.quote(override)
    spelt = override.replace("\\", "\\\\").replace("'", "\\'").replace("  ", " \\x20")
    return "$'" + "".join(c if c.isprintable() else _as_bytes(c) for c in spelt) + "'"


def _as_bytes(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def hints(key: str) -> list[Any]:
    """Return the kinds of values that a dotted key takes:
    one for every choice of its group that has it.
    """
    group, _, rest = key.partition(".")
    if group == "run":
        return [hint for name, hint in get_type_hints(RunConf).items() if name == rest]
    choices = constructors(group).values() if group in COMPONENTS else ()
    return [hint for taken in choices for hint in _hints(taken, rest.split("."))] or list(
        _hints(constructor(ROOT), key.split("."))
    )


def _hints(taken: Constructor, names: Sequence[str]) -> Iterator[Any]:
    hint = taken.kinds().get(names[0])
    if len(names) > 1 and isinstance(hint, Constructor):
        yield from _hints(hint, names[1:])
    elif len(names) == 1 and hint is not None and hint is not Any:
        yield hint


def _is_only_text(key: str) -> bool:
    kinds = hints(key)
    return bool(kinds) and all(
        str in (hint, *get_args(hint)) and get_origin(hint) is not list for hint in kinds
    )
