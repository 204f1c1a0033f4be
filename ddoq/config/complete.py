"""From what was composed to what is meant: options that files leave out, numbers of their type."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, get_args, get_origin

from ddoq.config.choices import constructor_of
from ddoq.config.constructors import Constructor
from ddoq.config.parts import places


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved configuration in which every component has all its options.

    What is no component, or of another type than its constructor says, stays as it is.
    """
    whole = deepcopy(dict(config))
    for _, group, part in places(whole):
        if taken := constructor_of(group, part):
            part.update(_filled(part, taken))
    return whole


def _filled(part: Mapping[str, Any], taken: Constructor) -> dict[str, Any]:
    """Return a component, or a group of its options, with a value for every option."""
    values = deepcopy(taken.defaults()) | part
    return values | {name: _typed(values[name], kind) for name, kind in taken.kinds().items()}


def _typed(value: Any, kind: Any) -> Any:
    """Return a number as text or with a decimal point where that is the option's type."""
    if isinstance(kind, Constructor):
        return _filled(value, kind) if isinstance(value, Mapping) else value
    kinds = get_args(kind) or (kind,)
    if get_origin(kind) is list:
        return [_typed(item, kinds[0]) for item in value] if isinstance(value, list) else value
    if isinstance(value, list):
        return next((_typed(value, inner) for inner in kinds if get_origin(inner) is list), value)
    if isinstance(value, bool) or not isinstance(value, int | float) or type(value) in kinds:
        return value
    if float in kinds and abs(value) <= sys.float_info.max:
        return float(value)
    return str(value) if str in kinds else value
