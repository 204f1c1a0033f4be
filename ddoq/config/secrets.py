"""Keep passwords out of the configuration:
it is written to files that are shared, and sent to trackers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from ddoq.errors import ConfigError

_WORDS = "TOKENS?|SECRETS?|PASSWORDS?|PASSWD|PASS|KEYS?|APIKEY|CREDENTIALS?|PAT"
_NAME = re.compile(rf"(api_?key|token|secret|password)$|(^|_)({_WORDS})(_|$)", re.IGNORECASE)
#: Characters: less may be a word, and what is not long may be part of a path by chance.
_SHORTEST, _LONG = 9, 16
_REMEDY = "take it out; W&B and Hugging Face read theirs from the environment"

#: What a secret looks like, whatever it is for. Revisions of models are 40 hex digits, too.
_SHAPES = {
    "a W&B API key": re.compile(r"\bwandb_v\d_\w{20,}|^[0-9a-f]{40}$"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "a password": re.compile(r"://[^/\s@]*:[^/\s@]+@"),
}


def is_secret(name: str) -> bool:
    """Tell whether an environment variable looks like a secret by its name."""
    return _NAME.search(name) is not None


def check_secrets(values: Iterable[tuple[str, Any]]) -> None:
    """Raise ConfigError for the first of some ``(dotted key, value)`` that holds a secret;
    it is not repeated.
    """
    secrets = {
        name: value
        for name, value in os.environ.items()
        if is_secret(name) and len(value) >= _SHORTEST
    }
    for key, value in values:
        if not isinstance(value, str):
            continue
        leaks = [
            f"the value of {name}"
            for name, secret in secrets.items()
            if value == secret or (len(secret) >= _LONG and secret in value)
        ]
        if not key.endswith("revision"):
            leaks += [what for what, shape in _SHAPES.items() if shape.search(value)]
        if leaks:
            raise ConfigError(
                f"{key}: holds {leaks[0]}, and configurations are written to files", _REMEDY
            )


def check_words(words: Iterable[str]) -> None:
    """Raise ConfigError where an argument of the command line,
    which is written down as well, holds a secret.
    """
    for word in words:
        key, _, value = word.partition("=")
        check_secrets([("the command line", key), (key, value)])


def register_env_resolver() -> None:
    """Let ``${oc.env:NAME}`` refuse secrets."""

    def env(name: str, *default: object) -> str | None:
        if is_secret(name):
            raise ConfigError(
                f"${{oc.env:{name}}}: holds a secret, and configurations are written to files",
                "leave it in the environment, where W&B and Hugging Face find theirs by themselves",
            )
        return oc.env(name, *default)

    OmegaConf.register_new_resolver("oc.env", env, replace=True)


def leaves(part: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the ``(dotted key, value)`` of every leaf of a configuration."""
    if isinstance(part, Mapping | list):
        for name, value in part.items() if isinstance(part, Mapping) else enumerate(part):
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, part
