"""The rules of methods that optimise images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddoq.errors import ConfigError, did_you_mean

#: What a rule may ask, given what it asks for, ``ipc`` and the data set's name. Only what the
#: configuration says, for keys are there before anybody has looked at the data.
_CONDITIONS = {
    "min_ipc": lambda asked, ipc, _: ipc >= asked,
    "max_ipc": lambda asked, ipc, _: ipc <= asked,
    "datasets": lambda asked, _, dataset: dataset in asked,
}


def resolved(method: Mapping[str, Any], *, ipc: int, dataset: str, path: str = "method") -> dict:
    """Return a method's options after its rules, without them; what has a value keeps it.

    A rule has conditions (``min_ipc``, ``max_ipc``, ``datasets``, a list of names) and values; the
    first that holds and sets a value decides it.

    Args:
        method: configuration.
        ipc: images per class.
        dataset: its name.
        path: where the method stands in the configuration.

    Raises:
        ConfigError: a rule asks for or sets what there is not, or nothing decides a value.
    """
    options = {name: value for name, value in method.items() if name != "rules"}
    for number, rule in enumerate(method["rules"]):
        for name in rule:
            if name not in _CONDITIONS and name not in options:
                cause = f"{path}.rules.{number}.{name}: there is no such option or condition"
                raise ConfigError(cause, did_you_mean(name, [*_CONDITIONS, *options]))
        if _holds(rule, ipc, dataset):
            for name, value in options.items():
                options[name] = rule.get(name) if value is None else value
    for name, value in options.items():
        if value is None:
            raise ConfigError(
                f"{path}.{name}: null, and no rule decides it for ipc={ipc} of {dataset}",
                f"set {path}.{name} to a value",
            )
    return options


def _holds(rule: Mapping[str, Any], ipc: int, dataset: str) -> bool:
    asked = [name for name in _CONDITIONS if name in rule]
    return all(_CONDITIONS[name](rule[name], ipc, dataset) for name in asked)
