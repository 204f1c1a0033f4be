"""What an audit's facts say about pictures on both sides of a split, in words and in numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ddoq.errors import DataError

Facts = Mapping[str, Any]


def leak_lines(audit: Facts) -> Iterator[str]:
    """Yield a line for each pair of splits that share pictures, with an example."""
    for leak in audit["leaks"]:
        if leak["equal"]:
            yield f"{leak_words(leak)}, e.g. {leak['pictures'][0]}"


def likeness_line(audit: Facts) -> str:
    """Return how many pictures look nearly like one of another split, in one line;
    empty where none do.
    """
    alike = [leak for leak in audit["leaks"] if leak["alike"]]
    return "look nearly alike: " + "; ".join(map(_alike_words, alike)) if alike else ""


def leak_words(leak: Facts) -> str:
    """Return all about one pair of splits in words; empty where they have nothing in common."""
    equal = (
        f"{leak['equal']:,} of {leak['num']:,} {leak['of']} pictures "
        f"are {leak['within']} pictures, too"
    )
    alike = f"{_alike_words(leak)} look nearly alike"
    return ", ".join([equal] * bool(leak["equal"]) + [alike] * bool(leak["alike"]))


def _alike_words(leak: Facts) -> str:
    return f"{leak['alike']:,} of {leak['num']:,} {leak['of']} pictures and {leak['within']} ones"


def leak_counts(audit: Facts) -> dict[str, int]:
    """Return how many test pictures are training pictures, too,
    and how many more look nearly like one.
    """
    leak = next(
        leak for leak in audit["leaks"] if (leak["of"], leak["within"]) == ("test", "train")
    )
    return {"num_test_in_train": leak["equal"], "num_test_like_train": leak["alike"]}


def refuse_leaks(audit: Facts) -> None:
    """Raise DataError where pictures are on both sides of a split."""
    leaking = [leak for leak in audit["leaks"] if leak["equal"]]
    if leaking:
        raise DataError(
            f"dataset.on_leak: {leak_words(leaking[0])}, e.g. {leaking[0]['pictures'][0]}",
            "set dataset.on_leak=skip to leave the copies out of training, "
            "or keep to measure with them",
        )
