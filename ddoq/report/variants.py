"""How groups of one name differ, in as few words as tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ddoq.config.names import NOT_IDENTITY
from ddoq.report.formats import word

#: Fields that say how groups of one name may differ, the plainest first.
_WORDS = (
    *("method", "quantizer", "weighting", "generator", "guidance"),
    *("strength", "space", "allocation", "redraw"),
    *("epochs", "num_steps", "batch_size", "learning_rate"),
    *("dataset_source", "image_size", "num_train"),
)
_DIGESTS = ("dataset_key", "protocol_key", "recipe_key", "setting", "group_key")
#: Parts of a configuration that other fields show already, or that no student depends on.
_NOT_SHOWN = (*NOT_IDENTITY, "ipc", "seed", "measure", "compare", "ablation", "baselines")
_MOST = 3  # keys of a configuration named in one variant

Fields = Mapping[str, Any]


def describe(
    groups: Sequence[Fields], runs: Sequence[str], config_of: Callable[[str], Fields]
) -> list[str]:
    """Return how groups of one name differ, no two in the same words:
    by what rows say, by their runs' configurations, or by keys.

    Args:
        groups: two or more.
        runs: that they are of, one each.
        config_of: returns the configuration of a run by its name; empty where it is not known.
    """
    texts = _differing([{name: group.get(name) for name in _WORDS} for group in groups])
    if not _tell_apart(texts):
        by_config = _differing([_flat(config_of(run)) for run in runs])
        texts = _joined(texts, by_config)
        if not _tell_apart(by_config):
            by_key = _differing([{name: group.get(name) for name in _DIGESTS} for group in groups])
            texts = _joined(texts, by_key)
    if not _tell_apart(texts):  # more runs of more keys than are named
        texts = _joined(texts, [f"run {run}" for run in runs])
    return texts


def _joined(texts: Sequence[str], more: Sequence[str]) -> list[str]:
    return [", ".join(filter(None, both)) for both in zip(texts, more, strict=True)]


def _differing(all_fields: Sequence[Fields]) -> list[str]:
    """Return the first fields in which some differ, as ``name=value``, one text for each."""
    names = dict.fromkeys(name for fields in all_fields for name in fields)
    differ = [name for name in names if len({str(fields.get(name)) for fields in all_fields}) > 1]
    return [
        ", ".join(f"{name}={word('', fields.get(name))}" for name in differ[:_MOST])
        for fields in all_fields
    ]


def _tell_apart(texts: Sequence[str]) -> bool:
    return len(set(texts)) == len(texts)


def _flat(config: Fields, above: str = "") -> dict[str, Any]:
    """Return a configuration with dotted keys, without what does not matter here."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if not above and name in _NOT_SHOWN:
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{name}.")
        elif name not in ("_target_", "source", "num_seeds"):
            flat[f"{above}{name}"] = value
    return flat
