"""Keep passwords out of the configuration: it is written to files that are shared, and sent to trackers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ddoq.errors import ConfigError

_NAME = re.compile(r"(api_?key|token|secret|password)$", re.IGNORECASE)
_SHORTEST = 16  # characters; a shorter value may be part of a path by chance

#: What a secret looks like, whatever it is for. Revisions of models are 40 hex digits, too.
_SHAPES = {
    "a W&B API key": re.compile(r"\bwandb_v\d_\w{20,}|^[0-9a-f]{40}$"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "a password": re.compile(r"://[^/\s@]*:[^/\s@]+@"),
}


def check_secrets(values: Iterable[tuple[str, Any]]) -> None:
    """Raise ConfigError for the first of some ``(dotted key, value)`` that holds a secret; it is not repeated."""
    known = {name: value for name, value in os.environ.items() if _NAME.search(name) and len(value) >= _SHORTEST}
    for key, value in values:
        if not isinstance(value, str):
            continue
        found = [f"the value of {name}" for name, secret in known.items() if secret in value]
        if not key.endswith("revision"):
            found += [what for what, shape in _SHAPES.items() if shape.search(value)]
        if found:
            raise ConfigError(
                f"{key}: holds {found[0]}, and configurations are written to files",
                "take it out; W&B and Hugging Face read theirs from the environment",
            )


def leaves(part: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the ``(dotted key, value)`` of every leaf of a configuration."""
    if isinstance(part, Mapping | list):
        for name, value in part.items() if isinstance(part, Mapping) else enumerate(part):
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, part
