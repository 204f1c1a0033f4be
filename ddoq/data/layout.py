"""What the folders of a data set are: splits, classes, or neither.

A guess by names is checked against the folders.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from unicodedata import normalize

from ddoq.data.names import is_filler, split_of
from ddoq.data.tree import holds_images, images_in, printable, subfolders
from ddoq.errors import DataError, override

#: Folders that were splits from the first version on.
#: What is read in another way than then has another fingerprint.
_FIRST_KNOWN = frozenset(["train", "validation", "valid", "val", "test"])
_TABLES = ("*.parquet", "*.arrow", "*/*.parquet", "*/*.arrow")
_MOST_NAMED = 4
_DEEPEST = 8  # folders that hold nothing but a folder
_MOST_DIGITS = 4  # of folds, versions and sizes; more are WordNet ids, dates or patients


def class_name(folder: Path) -> str:
    """Return the name of a class folder, the same however its accents are encoded."""
    return printable(normalize("NFC", folder.name))


def _class_names(folder: Path) -> set[str]:
    return {class_name(inside) for inside in subfolders(folder)}


@dataclass(frozen=True)
class Part:
    """A folder named like a split, which holds folders.

    Attributes:
        split: that it stands for.
        exact: whether its name says nothing else, see ``split_of``.
        folder: itself.
        inner: where its folders are: in itself, or,
            where it wraps another one of its name, in that.
    """

    split: str
    exact: bool
    folder: Path
    inner: Path

    @property
    def classes(self) -> set[str]:
        """Names of the folders in it."""
        return _class_names(self.inner)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The class folders of a data set.

    Attributes:
        root: the folder that splits or classes are in.
        classes: split (``""`` where there are none), name of the class, and folder.
        where: the folder of each split, in words.
        notes: what was decided about them, in words.
        is_new: whether an earlier version read the same folders in another way.
    """

    root: Path
    classes: Sequence[tuple[str, str, Path]]
    where: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    is_new: bool = False


def recognise(root: Path) -> Layout:
    """Return what the folders below ``root`` are.

    Raises:
        DataError: they are nothing, or could be two things.
            The remedy names the folder to give, or to rename.
    """
    base = root
    for _ in range(_DEEPEST):  # a link may lead in a circle
        base = _only(base) or base
    tops = subfolders(base)
    if not tops:
        raise DataError(
            f"dataset.root: {printable(str(base))} holds no class folders",
            _remedy_without_folders(base),
        )
    layout = _as_splits(base, tops) or _as_classes(base, tops)
    if base == root:
        return layout
    note = (
        f"found in {printable(base.relative_to(root).as_posix())}/, "
        f"the only folder of {printable(root.name)}/"
    )
    return replace(layout, root=base, notes=[note, *layout.notes])


def _only(folder: Path) -> Path | None:
    """Return the only folder in a folder, where it can be no class,
    since it holds folders and neither has images.
    """
    inside = subfolders(folder)
    if len(inside) != 1:
        return None
    only = inside[0]
    named_split = split_of(only.name)
    if named_split and named_split[1]:
        return None
    nested = subfolders(only) and not images_in(folder) and not images_in(only)
    return only if nested else None


def _remedy_without_folders(folder: Path) -> str:
    if any(next(folder.glob(pattern), None) for pattern in _TABLES):
        return f"it holds tables: dataset=parquet {override('dataset.root', folder)}"
    higher = above(folder) if images_in(folder) else None
    return higher or "put the images into one sub-folder per class"


def above(folder: Path) -> str | None:
    """Return as a remedy the folder that a folder lies in,
    where others beside it hold images, too.
    """
    siblings = [sibling for sibling in subfolders(folder.resolve().parent) if images_in(sibling)]
    if len(siblings) < 2:
        return None
    return (
        "give the folder that holds all class folders: "
        f"{override('dataset.root', folder.resolve().parent)}"
    )


# --- splits -----------------------------------------------------------------------------------


def _as_splits(base: Path, tops: Sequence[Path]) -> Layout | None:
    """Return the class folders of the splits; ``None`` where no folders are splits."""
    named = [part for folder in tops if (part := _part(folder))]
    trains = [part for part in named if part.split == "train"]
    if not trains:
        return None
    train = next((part for part in trains if len(_agreeing(part, named)) > 1), trains[0])
    parts = _agreeing(train, named)
    if len(parts) == 1:
        if not train.exact or not _stands_alone(base, train, tops, named):
            return None
        parts = [part for part in named if part.exact]
    parts = _each_once(base, parts)
    # A test folder without class folders has no labels:
    # it keeps its place, and test images are drawn.
    flat = {split_of(top.name)[0] for top in tops if top.name.lower() in _FIRST_KNOWN}
    tested_on = "test" if "test" in flat | {part.split for part in parts} else "validation"
    by_split = [("test" if part.split == tested_on else part.split, part) for part in parts]
    return Layout(
        root=base,
        classes=[
            (split, class_name(folder), folder)
            for split, part in by_split
            for folder in subfolders(part.inner)
        ],
        where={
            split: printable(part.inner.relative_to(base).as_posix()) + "/"
            for split, part in by_split
        },
        notes=list(_beside(tops, train, parts)),
        is_new=any(
            part.folder.name.lower() not in _FIRST_KNOWN or part.inner != part.folder
            for part in parts
        ),
    )


def _part(folder: Path) -> Part | None:
    named_split = split_of(folder.name)
    inside = subfolders(folder) if named_split else []
    if not inside:
        return None
    wrapped = len(inside) == 1 and (
        split_of(inside[0].name) == named_split or is_filler(inside[0].name)
    )
    inner = inside[0] if wrapped and subfolders(inside[0]) and not images_in(inside[0]) else folder
    return Part(*named_split, folder, inner)


def _agreeing(train: Part, parts: Sequence[Part]) -> list[Part]:
    """Return ``train`` and the parts with more than half of its classes, or of their own,
    where those are fewer.
    """
    return [
        part
        for part in parts
        if part is train
        or 2 * len(train.classes & part.classes) > min(len(train.classes), len(part.classes))
    ]


def _stands_alone(base: Path, train: Part, tops: Sequence[Path], named: Sequence[Part]) -> bool:
    """Return whether a folder called train, with which no other split agrees,
    is a split all the same.

    Raises:
        DataError: it may be the training images, or a class.
    """
    others = [top for top in tops if not split_of(top.name) and holds_images(top)]
    if others and images_in(train.folder):
        return False
    if twins := [top for top in others if _class_names(top) & train.classes]:
        raise DataError(
            f"dataset.root: {_list(twins)} in {printable(str(base))} holds the classes "
            f"of {train.folder.name}, and is no split by its name",
            "rename it to test or val, "
            f"or leave it aside: {override('dataset.root', train.folder)}",
        )
    if len(others) > 1 or (others and len(named) > 1):
        raise DataError(
            f"dataset.root: {train.folder.name} in {printable(str(base))} holds folders, "
            f"and {_list(others)} beside it images: is it the training images, or a class?",
            f"for the former, {override('dataset.root', train.folder)}; "
            "for the latter, put its images into it directly",
        )
    return True


def _each_once(base: Path, parts: Sequence[Part]) -> list[Part]:
    """Return the parts, one for each split. Raises DataError where there are two."""
    number = Counter(part.split for part in parts)
    measured = [part for part in parts if part.folder.name.lower().startswith("eval")]
    if number["validation"] == 2 and len(measured) == 1 and not number["test"]:  # dev and eval
        return [replace(part, split="test") if part in measured else part for part in parts]
    for split in (split for split, count in number.items() if count > 1):
        same = [part.folder for part in parts if part.split == split]
        raise DataError(
            "dataset.root: "
            f"{_list(same)} in {printable(str(base))} are all {split} images by their names",
            "put the images of one of them into the other, "
            f"or move it out of {printable(str(base))}",
        )
    return list(parts)


def _beside(tops: Sequence[Path], train: Part, parts: Sequence[Part]) -> Iterator[str]:
    """Yield in words what lies beside the splits and holds images."""
    used = {part.folder for part in parts}
    for top in (top for top in tops if top not in used and holds_images(top)):
        inside = _class_names(top)
        what = (
            "the classes of train, too" if inside & train.classes else "no class folders of train"
        )
        yield f"left aside: {printable(top.name)}/, which holds {what}"


# --- classes ----------------------------------------------------------------------------------


def _as_classes(base: Path, tops: Sequence[Path]) -> Layout:
    """Return the folders as classes.

    Raises DataError where the folders in them are the classes rather.
    """
    _check_not_splits(base, tops)
    notes = [
        f"{printable(top.name)} is a class: it holds images, and no class folders"
        for top in tops
        if (named_split := split_of(top.name)) and named_split[1]
    ]
    if len(tops) > 1 and not any(images_in(top) for top in tops):
        branches = {top: _branch(top) for top in tops}
        if inverted := _splits_of_classes(base, branches):
            return inverted
        _check_not_empty(base, branches)
        notes += _check_level(base, branches)
    was_split = any(top.name.lower() == "train" for top in tops)
    classes = [("", class_name(top), top) for top in tops]
    return Layout(root=base, classes=classes, notes=notes, is_new=was_split)


def _check_not_splits(base: Path, tops: Sequence[Path]) -> None:
    """Raise DataError where all folders are splits by their names."""
    named_splits = [split_of(top.name) for top in tops]
    if not all(named_splits):
        return
    if all(exact for _, exact in named_splits) and all(
        split != "train" for split, _ in named_splits
    ):
        raise DataError(
            "dataset.root: "
            f"{printable(str(base))} holds {', '.join(top.name for top in tops)} and no train",
            "name the folder of the training images train",
        )
    if any(split == "train" for split, _ in named_splits):
        flat = [top for top in tops if not subfolders(top)]
        what = (
            f"{_list(flat)} holds no class folders"
            if flat
            else f"{_list(tops)} hold different folders"
        )
        raise DataError(
            f"dataset.root: {printable(str(base))} is made of splits by its names, and {what}",
            _remedy_without_folders(base),
        )


def _branch(folder: Path) -> list[Path]:
    """Return the folders in a folder, or in the only one in it."""
    inside = subfolders(folder)
    if len(inside) != 1 or split_of(inside[0].name) or images_in(folder):
        return inside
    return _branch(inside[0])


def _splits_of_classes(base: Path, branches: Mapping[Path, list[Path]]) -> Layout | None:
    """Return the layout of ``<class>/train``, ``<class>/test``; ``None`` where it is another."""
    inside = [
        (top, folder, split_of(folder.name))
        for top, folders in branches.items()
        for folder in folders
    ]
    if not all(branches.values()) or not all(
        named_split and named_split[1] and not subfolders(part) for _, part, named_split in inside
    ):
        return None
    splits = {named_split[0] for _, _, named_split in inside}
    if "train" not in splits or len(
        {(top, named_split[0]) for top, _, named_split in inside}
    ) < len(inside):
        return None
    tested_on = "test" if "test" in splits else "validation"
    classes = [
        ("test" if named_split[0] == tested_on else named_split[0], class_name(top), part)
        for top, part, named_split in inside
    ]
    where = {split: f"<class>/{part.name}/" for split, _, part in classes}
    notes = ["every class folder holds the splits"]
    return Layout(root=base, classes=classes, where=where, notes=notes, is_new=True)


def _check_not_empty(base: Path, branches: Mapping[Path, list[Path]]) -> None:
    """Raise DataError where one folder alone holds images: it is none of several classes."""
    holding = list(islice((top for top in branches if holds_images(top)), 2))
    if len(holding) == 1:
        raise DataError(
            f"dataset.root: of {_list(list(branches))} in {printable(str(base))} "
            f"only {printable(holding[0].name)} holds images, in folders of its own",
            f"give that one: {override('dataset.root', holding[0])}",
        )


def _check_level(base: Path, branches: Mapping[Path, list[Path]]) -> list[str]:
    """Return in words what the folders in the classes were taken for.

    Raises:
        DataError: all hold the same folders, and those are more likely the classes.
    """
    tops = list(branches)
    inside = [{class_name(folder) for folder in folders} for folders in branches.values()]
    union = set.union(*inside)
    if not union:
        return []
    if len(union) < 2 or not all(2 * len(names) > len(union) for names in inside):
        return ["images lie in sub-folders of the classes, which are not told apart"]
    splits = all((named_split := split_of(name)) and named_split[1] for name in union)
    if len(union) < len(tops) and not splits and not _are_numbered([top.name for top in tops]):
        return [
            f"all classes hold the same folders ({_shortened(sorted(union))}), "
            "which are not told apart"
        ]
    raise DataError(
        f"dataset.root: {_list(tops)} in {printable(str(base))} hold the same folders "
        f"({_shortened(sorted(union))}): which are the classes?",
        f"if those are in {printable(tops[0].name)}, "
        f"{override('dataset.root', branches[tops[0]][0].parent)}; "
        f"if they are {_list(tops)}, put the images of each into it directly",
    )


def _are_numbered(names: Sequence[str]) -> bool:
    """Return whether names differ in a number alone, as those of folds, versions and sizes do."""
    parts = [re.fullmatch(rf"(\D*)\d{{1,{_MOST_DIGITS}}}(\D*)", name) for name in names]
    return all(parts) and len({part.groups() for part in parts}) == 1


def _list(folders: Sequence[Path]) -> str:
    return _shortened([printable(folder.name) for folder in folders])


def _shortened(names: Sequence[str]) -> str:
    shown = [printable(name) for name in names[:_MOST_NAMED]]
    return ", ".join(shown) + (" …" if len(names) > _MOST_NAMED else "")
