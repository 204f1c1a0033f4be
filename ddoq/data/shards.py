"""Which files of a folder are the tables of which split:
those of the Hub, of its conversions, and of ``datasets``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ddoq.data.base import SPLITS
from ddoq.data.names import is_filler, split_of
from ddoq.data.tree import is_nobodys, printable, subfolders
from ddoq.errors import DataError, override

_ENDINGS = (".parquet", ".arrow")  # the latter is what ``save_to_disk`` of ``datasets`` writes
#: ``train-00000-of-00002-0123456789abcdef``: a name, and, all optional, number, total and checksum.
_SHARD = re.compile(
    r"(?P<name>.*?)"
    r"(?:(?:^|[-_. ])(?:(?:part|shard|chunk)[-_]?)?(?P<number>\d+)(?:[-_]of[-_](?P<total>\d+))?"
    r"(?:-[0-9a-f]{8,})?)?"
)
_DEEPEST = 4
_MOST_NAMED = 5


@dataclass(frozen=True)
class Shards:
    """The files of a data set of tables.

    Attributes:
        base: the folder that they are named relative to.
        files: of every split, sorted; of ``""`` where there are no splits.
        notes: what was decided about them, in words.
        aside: files beside them.
    """

    base: Path
    files: dict[str, list[Path]]
    notes: Sequence[str] = ()
    aside: Sequence[Path] = ()

    def __iter__(self) -> Iterator[tuple[str, Path]]:
        return ((split, file) for split, files in self.files.items() for file in files)


def find_shards(root: Path) -> Shards:
    """Return the files of a folder, or one file, by split;
    with no test file, the validation file is the test set.

    Raises:
        DataError: there are none, one is missing, or it is not clear which belong together.
    """
    if root.is_file():
        return _single(root)
    shards = _find(root, _DEEPEST)
    if shards is None:
        raise DataError(
            f"dataset: no train*.parquet in {root}", "name the files train*.parquet, test*.parquet"
        )
    for _, file in shards:
        if not file.is_file():  # a pipe would block, and a link to nothing lose its rows
            raise DataError(f"dataset: {file} is no file", "repair or remove it")
    for files in shards.files.values():
        _check_complete(files)
    files = {split: shards.files[split] for split in ("", *SPLITS) if split in shards.files}
    if "test" not in files and "validation" in files:
        files["test"] = files.pop("validation")
    return replace(shards, files=files)


def has_tables(folder: Path, depth: int = _DEEPEST) -> bool:
    """Return whether there are tables in a folder or,
    in the layouts that ``find_shards`` knows, below it.
    """
    if not folder.is_dir():
        return False
    return (
        bool(_tables(folder))
        or depth > 0
        and any(has_tables(inside, depth - 1) for inside in subfolders(folder))
    )


def _single(file: Path) -> Shards:
    if file.suffix.lower() not in _ENDINGS:
        raise DataError(
            f"dataset.root: {file} is no Parquet file",
            "set dataset.root to a folder of train*.parquet",
        )
    others = _find(file.parent, 0)
    if (
        others
        and {"validation", "test"} & others.files.keys()
        and file in dict.fromkeys(map(_second, others))
    ):
        raise DataError(
            f"dataset.root: {file} is one of the files of a data set with splits",
            f"give its folder: {override('dataset.root', file.parent)}",
        )
    return Shards(file.parent, {"": [file]}, [f"{printable(file.name)} alone"])


def _second(pair: tuple[str, Path]) -> Path:
    return pair[1]


def _find(folder: Path, depth: int) -> Shards | None:
    tables = _tables(folder)
    if tables:
        return _by_name(folder, tables)
    inside = subfolders(folder)
    parts: dict[str, list[Path]] = {}
    for part in inside:
        if (named_split := split_of(part.name)) and (
            files := [file for file in _tables(part) if _fits(file, named_split[0])]
        ):
            parts.setdefault(named_split[0], []).extend(files)
    if "train" in parts:
        return Shards(folder, parts)
    sets = [shards for part in inside if depth and (shards := _find(part, depth - 1))]
    if len(sets) > 1:
        bases = [shards.base.relative_to(folder).as_posix() for shards in sets[:_MOST_NAMED]]
        raise DataError(
            f"dataset.root: {folder} holds several sets of tables: {', '.join(bases)}",
            f"give one of them: {override('dataset.root', sets[0].base)}",
        )
    if not sets:
        return None
    where = sets[0].base.relative_to(folder).as_posix()
    notes = (
        sets[0].notes
        if any(note.startswith("found in") for note in sets[0].notes)
        else [f"found in {printable(where)}/", *sets[0].notes]
    )
    return replace(sets[0], notes=notes)


def _tables(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in _ENDINGS and not is_nobodys(file.name)
    )


def _parsed(file: Path) -> re.Match:
    return _SHARD.fullmatch(file.stem)


def _fits(file: Path, split: str) -> bool:
    """Return whether a file in the folder of a split is a shard of it."""
    name = _parsed(file)["name"]
    named_split = split_of(name)
    return is_filler(name) if named_split is None else named_split[0] == split


def _by_name(folder: Path, tables: Sequence[Path]) -> Shards:
    """Return the files whose names, but for the number of a shard, are those of splits,
    or all where none says more.
    """
    by_name: dict[str, list[Path]] = {}
    for file in tables:
        by_name.setdefault(_parsed(file)["name"].lower(), []).append(file)
    # Names of the files by what stands before the split, and by split.
    sets: dict[str, dict[str, list[str]]] = {}
    for name in by_name:
        if (named_split := split_of(name)) and not re.search(r"[a-z]\d+$", name):
            prefix = "" if named_split[1] else re.sub(r"[-_. ]*[a-z]+$", "", name)
            sets.setdefault(prefix, {}).setdefault(named_split[0], []).append(name)
    trained = [prefix for prefix, names in sets.items() if "train" in names]
    if not trained:
        return _without_splits(folder, by_name, bool(sets))
    if "" not in trained and len(trained) > 1:
        raise DataError(
            f"dataset.root: {folder} holds train files of several sets: "
            f"{', '.join(trained[:_MOST_NAMED])}",
            "move the files of each into a folder of its own, "
            "and give one of these as dataset.root",
        )
    names = sets["" if "" in trained else trained[0]]
    for split, alike in names.items():
        if len(alike) > 1:
            files = ", ".join(by_name[name][0].name for name in alike)
            raise DataError(
                f"dataset.root: {files} in {folder} are all {split} images by their names",
                "number them as shards of one name (train-0.parquet), or move one of them away",
            )
    files = {split: by_name[alike[0]] for split, alike in names.items()}
    aside = [file for file in tables if file not in sum(files.values(), [])]
    return Shards(folder, files, _left(aside), aside)


def _left(aside: Sequence[Path]) -> list[str]:
    if not aside:
        return []
    named = ", ".join(printable(file.name) for file in aside[:_MOST_NAMED])
    return [f"left aside: {named}{' …' if len(aside) > _MOST_NAMED else ''}"]


def _without_splits(folder: Path, by_name: dict[str, list[Path]], are_splits: bool) -> Shards:
    """Return the shards of one table.

    Raises DataError where the files are several tables, or splits without train.
    """
    shards = [file for name, files in by_name.items() if is_filler(name) for file in files]
    others = [file for files in by_name.values() for file in files if file not in shards]
    if not are_splits and (shards or len(others) == 1):
        used, aside = (shards, others) if shards else (others, [])
        return Shards(folder, {"": used}, _left(aside), aside)
    named = ", ".join(printable(file.name) for file in others[:_MOST_NAMED])
    raise DataError(
        f"dataset: no train*.parquet in {folder}: {named}",
        "name the files train*.parquet, test*.parquet, "
        "with nothing but the number of a shard in the place of *",
    )


def _check_complete(files: Sequence[Path]) -> None:
    """Raise DataError where shards are missing by what the names of the others say."""
    numbered = [(file, match) for file in files if (match := _parsed(file))["total"]]
    if not numbered:
        return
    total = max(int(match["total"]) for _, match in numbered)
    there = {int(match["number"]) for _, match in numbered}
    missing = sorted(set(range(total)) - there)
    if not missing or there == set(range(1, total + 1)):
        return
    file, match = numbered[0]
    start, end = match.span("number")
    named = [
        f"{file.stem[:start]}{number:0{end - start}}-of-{match['total']}{file.suffix}"
        for number in missing[:_MOST_NAMED]
    ]
    raise DataError(
        f"dataset: {len(missing)} of {total} files are missing in {file.parent}: "
        f"{', '.join(named)}",
        "add what is missing, "
        "or rename the files that are there to train-0.parquet, train-1.parquet …",
    )
