"""What lies in folders: images, folders, and what is only named like one.

Nothing here knows of classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ddoq.errors import DataError
from ddoq.utils.io import READABLE, reading

#: Endings of images. Browsers and phones save JPEG as .jfif and .jpe, too.
EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jfif",
        ".jpe",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
    ]
)
#: What systems put beside the user's files; names with a leading dot are passed over as well.
_NOBODYS = frozenset(["__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"])
IMAGE, LINK, PIPE = "image", "a link to nothing", "neither a file nor a folder"


def files_below(
    folder: Path | str, above: frozenset[str] = frozenset()
) -> Iterator[tuple[str, str]]:
    """Yield what lies below a folder, in the order of the paths, without a stat of every file.

    Links are followed, those to folders too, but not in a circle.

    Args:
        folder: where to look.
        above: the folders that this one lies in, by their real paths,
            as far as links were followed.

    Yields:
        Name relative to ``folder``, and what it is: ``IMAGE``; ``LINK`` or ``PIPE`` where something
        is only named like one; or the kind of anything else: its extension.
    """
    with reading(folder, READABLE), os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if is_nobodys(entry.name):
            if is_named_image(entry.name):
                yield entry.name, "hidden image"
            continue
        within = above
        if entry.is_symlink() and os.path.isdir(entry.path):
            here, target = os.path.realpath(folder), os.path.realpath(entry.path)
            within = above | {here}
            if any(os.path.commonpath([target, place]) == target for place in within):
                yield entry.name, "link in a circle"
                continue
        elif not entry.is_dir(follow_symlinks=False):
            if not is_named_image(entry.name):
                yield entry.name, os.path.splitext(entry.name)[1].lower() or "without extension"
            else:
                yield (
                    entry.name,
                    IMAGE if entry.is_file(follow_symlinks=False) else _kind(entry.path),
                )
            continue
        yield from (
            (f"{entry.name}/{name}", what) for name, what in files_below(entry.path, within)
        )


def is_nobodys(name: str) -> bool:
    """Return whether a file or folder is none of the user's."""
    return name.startswith(".") or name in _NOBODYS


def is_named_image(name: str) -> bool:
    """Return whether a file is named like an image."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _kind(path: str) -> str:
    """Return what a link, pipe, socket or device is; it is not opened, which could block."""
    if os.path.isfile(path):
        return IMAGE
    return PIPE if os.path.exists(path) else LINK


def printable(name: str) -> str:
    """Return a name as valid text, in which bytes that are no UTF-8 are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def images_in(folder: Path) -> bool:
    """Return whether there are images directly in a folder; it is read up to the first one."""
    with reading(folder, READABLE), os.scandir(folder) as entries:
        return any(
            is_named_image(entry.name) and not is_nobodys(entry.name) and not entry.is_dir()
            for entry in entries
        )


def holds_images(folder: Path) -> bool:
    """Return whether there are images anywhere below a folder."""
    return any(what == IMAGE for _, what in files_below(folder))


def subfolders(path: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones.

    Raises:
        DataError: one is a link to nothing: its class would be lost.
    """
    with reading(path, READABLE):
        entries = sorted(entry for entry in path.iterdir() if not is_nobodys(entry.name))
        folders = [entry for entry in entries if entry.is_dir()]
        links = [entry for entry in entries if entry.is_symlink()]
        broken = [printable(str(entry)) for entry in links if not entry.exists()]
    if broken:
        raise DataError(f"dataset: {broken[0]} is a link to nothing", "repair or remove it")
    return folders
