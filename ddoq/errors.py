"""Errors that a user can act on: one line of cause, one line of remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST_LISTED = 20


class DdoqError(Exception):
    """A problem the user can solve. ``str(error)`` is exactly two lines, cause and remedy."""

    def __init__(self, cause: str, remedy: str):
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
    """A stage ran and produced something that must not be used (NaN latents, a teacher at chance)."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``"did you mean 'x'?"`` for the nearest choice, else the list of choices."""
    options = sorted(set(map(str, choices)))
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"choose one of: {', '.join(options[:_MOST_LISTED])}{' …' if len(options) > _MOST_LISTED else ''}"
