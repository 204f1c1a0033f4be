"""Errors that a user can act on: one line of cause, one line of remedy."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping

_MOST_LISTED = 20


class DdoqError(Exception):
    """A problem the user can solve. ``str(error)`` is exactly two lines, cause and remedy."""

    def __init__(self, cause: str, remedy: str | None = None):
        # torch makes the error of a worker process again, from the text of its traceback alone.
        if remedy is None:
            cause, _, remedy = cause.rpartition("\n  -> ")
            cause = cause.rpartition("\n")[2].partition(": ")[2]
        self.cause, self.remedy = " ".join(cause.split()), " ".join(remedy.split())
        super().__init__(self.cause, self.remedy)

    def __str__(self) -> str:
        return f"{self.cause}\n  -> {self.remedy}"


class ConfigError(DdoqError):
    """The configuration is wrong: a key, a value, or a combination of values."""


class DataError(DdoqError):
    """The data are missing, unreadable, or do not fit the configuration."""


class StoreError(DdoqError):
    """An artefact cannot be written, or what is stored is not what its manifest says."""


class StageError(DdoqError):
    """A stage ran and produced something that must not be used
    (NaN latents, a teacher at chance).
    """


def override(key: str, value: object) -> str:
    """Return ``key=value`` as it is typed into a shell,
    quoted where Hydra or the shell would read it otherwise.
    """
    text = str(value)
    if re.fullmatch(r"[\w./-]+", text, re.ASCII):
        return f"{key}={text}"
    text = text.replace("\\", "\\\\").replace("'", "\\'")
    return shlex.quote(f"{key}='{text}'")


def together(errors: Mapping[str, DdoqError]) -> tuple[str, str]:
    """Return one cause and one remedy for the errors of several things, by the thing's name,
    equal ones said once.
    """
    names: dict[str, list[str]] = {}
    for name, error in errors.items():
        names.setdefault(error.cause, []).append(name)
    causes = [f"{cause} ({', '.join(_shortened(of))})" for cause, of in names.items()]
    remedies = list(dict.fromkeys(error.remedy for error in errors.values()))
    return "; ".join(_shortened(causes)), "; ".join(_shortened(remedies))


def _shortened(items: list[str], most: int = 3) -> list[str]:
    return items if len(items) <= most else [*items[:most], f"and {len(items) - most} more"]


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``"did you mean 'x'?"`` for the nearest choice, else the list of choices."""
    options = sorted(set(map(str, choices)))
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return (
        "choose one of: "
        f"{', '.join(options[:_MOST_LISTED])}{' …' if len(options) > _MOST_LISTED else ''}"
    )
