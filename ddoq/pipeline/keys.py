"""Content keys: what a stage would compute, as a hash."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from ddoq.errors import ConfigError

KEY_LENGTH = 16  # hex digits in a path; 64 bits are plenty for a store of millions


def canonical(value: Any) -> Any:
    """Return ``value`` with every spelling of the same thing made equal.

    Mapping order is irrelevant, tuples are lists, and 1.0 is 1.

    Raises:
        ConfigError: for NaN, infinity, or an object: hashing its ``str()`` would let two configs collide.
    """
    if isinstance(value, Mapping):
        return {str(k): canonical(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(v) for v in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"a config value is {value}", "use a finite number")
        return int(value) if value.is_integer() else value
    if value is None or isinstance(value, bool | int | str):
        return value
    raise ConfigError(
        f"a config value of type {type(value).__name__} cannot be part of a content key: {value!r}",
        "use numbers, strings, booleans, lists and mappings",
    )


def digest(value: Any) -> str:
    """Return the key of a JSON-like value: ``KEY_LENGTH`` hex digits of its canonical sha256."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]
