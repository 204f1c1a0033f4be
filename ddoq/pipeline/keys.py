"""Content keys: what a stage would compute, as a hash."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from ddoq.errors import ConfigError

KEY_LENGTH = 16  # hex digits in a path; 64 bits are plenty for a store of millions

#: Options that joined after the first keys, with the values at which nothing changed. At that
#: value an option is no part of a key: what was computed before it existed is what it says.
#:
#: They stand below their owner: a component, by its ``_target_`` or, with a dot at the end, the
#: beginning of several; ``run``, the root of a configuration; a stage, by its name, for what its
#: nodes add of their own. An option is a dotted path from there to a key, through lists and
#: whatever has no ``_target_`` of its own; ``*`` is any name.
LATER: dict[str, dict[str, Any]] = {
    "run": {
        **{"method": None, "guidance": {}, "guidances": {}},
        **{"baselines.*.redraw": None, "baselines.*.guidance": {}, "baselines.*.guidances": {}},
        **{"measure.space": None, "measure.redundancy": False, "compare.pixels": False},
        "selection": {"_target_": "ddoq.selections.Everything", "name": "none"},
    },
    "ddoq.data.": {"pixel_range": None, "on_leak": "keep", "class_order": "text"},
    "ddoq.evaluation.protocol.Protocol": {"augmentation.dsa_color": False},
    "relabel": {"protocol.augmentation.dsa_color": False},
    "ddoq.labelers.": {"order": None},
    "ddoq.generators.": {"order": None, "inversion_scale": 1.0, "num_sets": 1000},
    "ddoq.distillers.": {
        **{"partition": 1, "prune": 0.0, "prune_epochs": 5, "importance": 0.0, "refresh": 50},
        "adaptive": 0.0,
    },
}


def settled(value: Any, owner: str = "", path: str = "") -> Any:
    """Return a configuration without the options of ``LATER`` that stand at their old value.

    Args:
        value: a configuration, or a part of one.
        owner: of ``value``, where it has no ``_target_``: ``run`` or the name of a stage.
        path: from the owner to ``value``.
    """
    if isinstance(value, list | tuple):
        return [settled(item, owner, path) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "_target_" in value:
        owner, path = str(value["_target_"]), ""
    kept = {}
    for name, inner in value.items():
        option = f"{path}.{name}" if path else str(name)
        if not _is_as_before(owner, option, inner):
            kept[name] = settled(inner, owner, option)
    return kept


def _is_as_before(owner: str, option: str, value: Any) -> bool:
    """Tell whether an option joined later and stands at the value at which nothing changed."""
    for name, options in LATER.items():
        if owner == name or (name.endswith(".") and owner.startswith(name)):
            for pattern, before in options.items():
                if fnmatchcase(option, pattern) and value == before:
                    return True
    return False


def canonical(value: Any) -> Any:
    """Return ``value`` with every spelling of the same thing made equal.

    Mapping order is irrelevant, tuples are lists, and 1.0 is 1.

    Raises:
        ConfigError: for NaN, infinity, or an object:
            hashing its ``str()`` would let two configs collide.
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
