"""Content keys: what a stage would compute, as a hash."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from ddoq.errors import ConfigError

KEY_LENGTH = 16  # hex digits in a path; 64 bits are plenty for a store of millions

#: Options that components got after their first keys, with the values at which nothing changed, by the beginning of
#: ``_target_``. At that value an option is no part of a key: what was computed before it existed is what it says.
LATER: dict[str, dict[str, Any]] = {
    "ddoq.data.": {"pixel_range": None, "on_leak": "keep", "class_order": "text"},
    "ddoq.labelers.": {"order": None},
    "ddoq.generators.": {"order": None},
}


def settled(value: Any) -> Any:
    """Return a configuration without the options of ``LATER`` that stand at the value of the time before them."""
    if isinstance(value, list | tuple):
        return [settled(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    later = _joined_later(str(value.get("_target_")))
    return {name: settled(inner) for name, inner in value.items() if name not in later or inner != later[name]}


def _joined_later(target: str) -> Mapping[str, Any]:
    return next((options for prefix, options in LATER.items() if target.startswith(prefix)), {})


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
