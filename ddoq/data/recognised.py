"""What a data set was taken for, in words: classes, splits, and what was decided about them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ddoq.data.base import SPLITS, ImageDataset, Source
from ddoq.data.names import ordered

_MOST_NAMED, _LONGEST = 5, 16  # names shown, and characters of each
_MOST_ASIDE = 3


def recognised(source: Source, spec: ImageDataset) -> list[str]:
    """Return lines for the plan and the report:
    the classes, the splits and how each was decided.
    """
    lines = [
        f"{source.provenance}, {_classes(source.class_names)}",
        "; ".join(_splits(source, spec)),
    ]
    lines += _order(source.class_names, getattr(spec, "class_order", None))
    lines += source.notes
    if source.unexpected_counts:
        lines.append(source.unexpected_counts)
    aside = [f"{number:,} × {what}" for what, number in source.ignored.items()]
    if aside and not any(note.startswith("left aside") for note in source.notes):
        lines.append(
            "beside them: "
            f"{', '.join(aside[:_MOST_ASIDE])}{' …' if len(aside) > _MOST_ASIDE else ''}"
        )
    return lines


def from_facts(facts: Mapping[str, Any]) -> Sequence[str]:
    """Return such lines from the facts of an index; one of an earlier version says less."""
    if "recognised" in facts:
        return facts["recognised"]
    counts = ", ".join(f"{split} {sum(facts['counts'][split]):,}" for split in SPLITS)
    return [f"{facts['provenance']}, {_classes(facts['class_names'])}", counts]


def _classes(names: Sequence[str]) -> str:
    shown = [
        name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
        for name in names[:_MOST_NAMED]
    ]
    return f"{len(names):,} classes: {', '.join(shown)}{' …' if len(names) > _MOST_NAMED else ''}"


def _splits(source: Source, spec: ImageDataset) -> Iterator[str]:
    counts = {split: int(np.sum(source.split == split)) for split in ("", *SPLITS)}
    where = {split: f" ({place})" for split, place in source.where.items()}
    few = f", at most {spec.train_per_class:,} per class" if spec.train_per_class else ""
    whole = f"{counts['']:,} images without splits" if counts[""] else f"train {counts['train']:,}"
    yield whole + where.get("train", "") + few
    drawn = {"validation": spec.validation_fraction, "test": spec.test_fraction}
    for split in ("test", "validation"):
        if counts[split]:
            yield f"{split} {counts[split]:,}{where.get(split, '')}"
        elif drawn[split]:
            rest = " of the rest" if split == "validation" and not counts["test"] else ""
            yield f"{split}: {100 * drawn[split]:.3g} %{rest} drawn"
        else:
            yield f"no {split} images"


def _order(names: Sequence[str], class_order: str | None) -> Iterator[str]:
    """Yield which order numbered classes are in, where there are two."""
    if class_order is None or not any(re.search("[0-9]", name) for name in names):
        return
    by_text, by_number = ordered(names, "text"), ordered(names, "number")
    if by_text != by_number and list(names) in (by_text, by_number):
        other = "number" if list(names) == by_text else "text"
        yield (
            f"classes in the order of {_word(class_order)}; "
            f"a teacher may have dataset.class_order={other}"
        )


def _word(class_order: str) -> str:
    return "numbers" if class_order == "number" else "text"
