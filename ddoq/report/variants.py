"""How groups of one name differ, in as few words as tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ddoq.config.names import NOT_IDENTITY
from ddoq.report.groups import PARTS, Group

#: Fields that say how groups of one name may differ, the plainest first.
_SAID = (
    *PARTS,
    "epochs",
    "num_steps",
    "batch_size",
    "learning_rate",
    "dataset_source",
    "image_size",
    "num_train",
)
_DIGESTS = ("dataset_key", "protocol_key", "recipe_key", "setting", "group_key")
#: Parts of a configuration that other fields show already, or that no student depends on.
_NOT_SHOWN = (*NOT_IDENTITY, "ipc", "seed", "measure", "compare", "ablation", "baselines")
_MOST = 3  # keys of a configuration named in one variant


def describe(groups: Sequence[Group], config_of: Callable[[str], Mapping[str, Any]]) -> list[str]:
    """Return how groups of one name differ:
    by what rows say, by their runs' configurations, or by keys.

    Args:
        groups: two or more.
        config_of: returns the configuration of a run by its name; empty where it is not known.
    """
    shown = [_differing([{name: group[name] for name in _SAID} for group in groups])]
    if not _tell_apart(shown[-1]):
        shown.append(_differing([_flat(config_of(group["run"])) for group in groups]))
    if not any(map(_tell_apart, shown)):
        shown.append(_differing([{name: group[name] for name in _DIGESTS} for group in groups]))
    texts = [", ".join(text for text in parts if text) for parts in zip(*shown, strict=True)]
    if len(set(texts)) < len(texts):  # more runs of more keys than are named
        texts = [
            f"{text}{', ' if text else ''}run {group['run']}"
            for text, group in zip(texts, groups, strict=True)
        ]
    return texts


def _differing(all_fields: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the first fields in which some differ, as ``name=value``, one text for each."""
    names = dict.fromkeys(name for fields in all_fields for name in fields)
    differ = [name for name in names if len({str(fields.get(name)) for fields in all_fields}) > 1][
        :_MOST
    ]
    return [
        ", ".join(f"{name}={_short(fields.get(name))}" for name in differ) for fields in all_fields
    ]


def _tell_apart(texts: Sequence[str]) -> bool:
    return len(set(texts)) == len(texts)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "–" if value is None else str(value)


def _flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return a configuration with dotted keys, without what does not matter here."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if not above and name in _NOT_SHOWN:
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, f"{above}{name}.")
        elif name not in ("_target_", "source", "num_seeds"):
            found[f"{above}{name}"] = value
    return found
