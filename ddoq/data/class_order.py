"""Files that name the class of every output of a network, in the order of the outputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ddoq.data.label_space import LabelSpace
from ddoq.errors import DataError, did_you_mean
from ddoq.utils.io import parse_json, reading, write_text

_FORM = "a JSON list of class names, or a text with one name per line, in the order of the outputs"


def read_order(path: str, key: str) -> list[str]:
    """Return the class names in a file: a JSON list, or a text with one name per line.

    Args:
        path: of the file.
        key: config key, for errors.

    Raises:
        DataError: there is no such file, or it is neither.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"{key}: there is no file {path}", f"give {_FORM}")
    with reading(file, f"give {key} {_FORM}"):
        text = file.read_text(encoding="utf-8-sig")
        if not text.lstrip().startswith("["):
            return [line.strip() for line in text.strip("\n").splitlines()]
        names = parse_json(text)
        if not all(isinstance(name, str) or type(name) is int for name in names):
            raise ValueError("not all of its entries are names")
        return [str(name) for name in names]


def write_order(path: Path, names: Sequence[str]) -> None:
    """Write what ``read_order`` reads, unless there is such a file: somebody may have edited it."""
    if not path.exists():
        write_text(path, json.dumps(list(names), indent=1, ensure_ascii=False) + "\n")


def reordered(names: Sequence[str], columns: Sequence[int], outputs: Sequence[int]) -> list[str]:
    """Return the class of every output of a network after a relabelling.

    Args:
        names: the class of every output, as it was believed.
        columns: the output of every label, as it was believed.
        outputs: the label whose output fits each label (``OrderTrial.outputs``).
    """
    ordered = list(names)
    for label, output in enumerate(outputs):
        ordered[columns[output]] = names[columns[label]]
    return ordered


def by_number(names: Sequence[str]) -> list[int]:
    """Return the rank of each class among the numbers that are their names;
    their labels where not all are numbers.
    """
    if not all(name.isdecimal() for name in names):
        return list(range(len(names)))
    ranks = {name: rank for rank, name in enumerate(sorted(names, key=int))}
    return [ranks[name] for name in names]


def outputs_of_classes(
    names: Sequence[str], space: LabelSpace, num_outputs: int, key: str
) -> list[int]:
    """Return the output of every class, in label order.

    Args:
        names: the class of every output: by its name, all its synonyms or its WordNet id.
        space: the classes of the data set; with fewer of them than outputs, other names may be any.
        num_outputs: of the network.
        key: config key, for errors.

    Raises:
        DataError: the names are not as many as the outputs, or a class has no output or several.
    """
    if len(names) != num_outputs:
        raise DataError(
            f"{key}: {len(names)} names for {num_outputs} outputs",
            "give one name for each output, and nothing else",
        )
    places: dict[str, list[int]] = {}
    for output, name in enumerate(names):
        places.setdefault(name, []).append(output)
    aliases = [
        {name, *others} - {None}
        for name, *others in zip(space.names, space.synonyms, space.wnids, strict=True)
    ]
    outputs = [
        sorted(place for alias in synonyms for place in places.get(alias, ()))
        for synonyms in aliases
    ]
    unknown = [name for name in places if not any(name in synonyms for synonyms in aliases)]
    for name, candidates in zip(space.names, outputs, strict=True):
        if len(candidates) > 1:
            raise DataError(
                f"{key}: outputs {candidates[0]} and {candidates[1]} "
                f"(counted from 0) are both named '{name}'",
                f"name each class once{_unnamed(space, outputs)}",
            )
        if not candidates:
            raise DataError(
                f"{key}: no output is named '{name}', a class of the data set",
                f"write '{name}' for its output; {did_you_mean(name, unknown)}"
                if unknown
                else f"write '{name}' for its output",
            )
    return [candidates[0] for candidates in outputs]


def _unnamed(space: LabelSpace, outputs: Sequence[Sequence[int]]) -> str:
    """Return the first class that has no output, for a remedy."""
    missing = [
        name for name, candidates in zip(space.names, outputs, strict=True) if not candidates
    ]
    return f"; '{missing[0]}' is in no line" if missing else ""
