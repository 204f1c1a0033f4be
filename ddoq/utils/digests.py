"""What is in files, by sha256: remembered, so that files that have not changed are not read twice.

    <folder>/<sha256 of the root's path, 16 digits>.digests    one table for each root of files

A table is text, its parts divided by zero bytes: the sha256 of all that follows, the root, then
for each file a row of its sha256, size, mtime and ctime in ns, inode, device and name.

A row stands for a file while all of these are as they were. Programs can set mtime back after a
change, but not ctime. Two changes within one tick of a file system's clock leave the same ctime,
though, and some file systems keep none: a file is only entered where any later change will show
(``is_settled``), and read every time where it may not.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rich.filesize import decimal
from rich.markup import escape

from ddoq.errors import DataError
from ddoq.utils.console import console, progress_bar
from ddoq.utils.io import READABLE, atomic_path, reading, remove_leftovers

_THREADS = 8  # they mostly wait for disks and networks, and hashing releases the interpreter
_PORTION_FILES, _PORTION_BYTES = 256, 2**25  # that a thread takes at once
_FEW_FILES, _FEW_BYTES = 1_000, 2**26  # up to this much is read in a moment, so every time
_MANY_FILES, _MANY_BYTES = 20_000, 2**30  # from here on it takes long enough to say so
_SAVE_SECONDS = 60  # so much reading a killed process may lose
_SECOND = 10**9  # ns
_TICK = 3 * _SECOND  # the coarsest clock, that of FAT, ticks every two seconds
_TRIES = 3
_MOST_OTHERS = 2_000_000  # rows of files that were not asked for: of other subsets, or gone


class Content(NamedTuple):
    """What is in a file: its size in bytes and its sha256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Digests:
    """Tells what is in files.

    Args:
        folder: of the tables; ``None`` remembers nothing. Where it cannot be written, nothing is
            remembered either. A damaged table counts as empty, and is written anew. The folder
            may be removed at any time.
    """

    folder: Path | None = None

    def of(self, root: Path, names: Sequence[str]) -> list[Content]:
        """Return what is in the files ``root/name``, in the order of their names.

        Raises:
            DataError: a file cannot be read, or does not stay the same while it is read.
        """
        place = os.fspath(root)
        rows = _rows(place, names)
        sizes = [int(row.partition(" ")[0]) for row in rows]
        table = self._table(os.path.realpath(place), sizes)
        remembered = table.load()
        digests = {row: remembered[row] for row in rows if row in remembered}
        contents = list(map(Content, sizes, map(digests.get, rows)))
        unread = [i for i, content in enumerate(contents) if content.sha256 is None]
        files = [(names[i], sizes[i]) for i in unread]
        for i, (content, row) in zip(unread, _read(place, files), strict=True):
            contents[i] = content
            if row:
                digests[row] = content.sha256
            table.save_at_times(digests, names)
        if unread:
            table.save(digests, names)
        return contents

    def _table(self, root: str, sizes: Sequence[int]) -> _Table:
        if self.folder is None or (len(sizes) <= _FEW_FILES and sum(sizes) <= _FEW_BYTES):
            return _Table(None, root)
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
        return _Table(self.folder / f"{name}.digests", root)


class _Table:
    """The digests of the files of one root, by row. ``path=None``: a table that stays empty."""

    def __init__(self, path: Path | None, root: str):
        self.path, self.root = path, root
        self._saved = time.monotonic()

    def load(self) -> dict[str, str]:
        """Return the digests by row; none where the table is missing or damaged."""
        try:
            content = self.path.read_bytes() if self.path else b""
        except OSError:
            return {}
        seal, _, body = content.partition(b"\0")
        root, *rows = body.decode(errors="surrogateescape").split("\0")
        if seal != _seal(body) or root != self.root:
            return {}
        return {row[65:]: row[:64] for row in rows}

    def save_at_times(self, digests: dict[str, str], names: Iterable[str]) -> None:
        """Save while files are still being read: reading them all may take an hour."""
        if time.monotonic() > self._saved + _SAVE_SECONDS:
            self.save(digests, names)

    def save(self, digests: dict[str, str], names: Iterable[str]) -> None:
        """Write the digests of the files ``names``, and those that the table has of others.

        Of two processes that save at once, one is lost: its files are read again next time.
        """
        if self.path is None:
            return
        rows, mine = dict(digests), set(names)
        others = [item for item in self.load().items() if item[0].split(" ", 5)[5] not in mine]
        if len(others) <= _MOST_OTHERS:
            rows.update(others)
        lines = [self.root, *(f"{digest} {row}" for row, digest in rows.items())]
        body = "\0".join(lines).encode(errors="surrogateescape")
        try:
            with atomic_path(self.path) as temporary:
                remove_leftovers(self.path.parent)
                temporary.write_bytes(b"\0".join([_seal(body), body]))
        except OSError as error:
            why = f"{escape(str(self.path))} cannot be written ({error.strerror})"
            console.print(f"[yellow]  {why}: the files are read again next time[/]", soft_wrap=True)
            self.path = None
        self._saved = time.monotonic()


def _seal(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


# --- looking at files --------------------------------------------------------------------------


def _rows(root: str, names: Sequence[str]) -> list[str]:
    """Return what stands for each file as it is now: its stamp and its name."""

    def of_some(start: int) -> list[str]:
        return [_row(root, name) for name in names[start : start + _PORTION_FILES]]

    with ThreadPoolExecutor(_THREADS) as pool:
        portions = pool.map(of_some, range(0, len(names), _PORTION_FILES))
        return [row for portion in portions for row in portion]


def _row(root: str, name: str) -> str:
    path = f"{root}/{name}"
    try:
        return f"{_stamp(os.stat(path))} {name}"
    except OSError:
        with reading(path, READABLE):
            raise


def _stamp(status: os.stat_result) -> str:
    # What is no block device (NFS, an overlay) gets its number when it is mounted: it differs
    # between machines that share the files.
    device = status.st_dev if os.major(status.st_dev) else 0
    size, mtime, ctime = status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return f"{size} {mtime} {ctime} {status.st_ino} {device}"


def is_settled(mtime: int, ctime: int, now: int) -> bool:
    """Tell whether any change of a file from ``now`` on will show in its times; ns since 1970.

    Its ctime has to be older than a tick of the clock. File systems that keep no ctime (squashfs,
    FAT, some in user space) give mtime for it, in whole seconds: their files can be exchanged for
    others with equal times.
    """
    keeps_ctime = ctime != mtime or ctime % _SECOND != 0
    return keeps_ctime and ctime < now - _TICK


# --- reading files -----------------------------------------------------------------------------


def _read(root: str, files: Sequence[tuple[str, int]]) -> Iterator[tuple[Content, str]]:
    """Yield contents of files, given names and sizes; each with its row, if that may be kept."""

    def read_some(names: Sequence[str]) -> list[tuple[Content, str]]:
        return [_read_one(root, name) for name in names]

    num_bytes = sum(size for _, size in files)
    with _shown(root, len(files), num_bytes) as advance, ThreadPoolExecutor(_THREADS) as pool:
        for portion in pool.map(read_some, _portions(files)):
            advance(sum(content.size for content, _ in portion))
            yield from portion


def _portions(files: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
    names, num_bytes = [], 0
    for name, size in files:
        names.append(name)
        num_bytes += size
        if len(names) == _PORTION_FILES or num_bytes >= _PORTION_BYTES:
            yield names
            names, num_bytes = [], 0
    if names:
        yield names


@contextmanager
def _shown(root: str, num_files: int, num_bytes: int) -> Iterator[Callable[[int], None]]:
    """Say that files are read, and show how far, where it takes long; take the bytes read."""
    if num_files < _MANY_FILES and num_bytes < _MANY_BYTES:
        yield lambda more: None
        return
    what = f"{decimal(num_bytes)} in {num_files:,} files of {escape(root)}"
    console.print(f"  reading {what}: results are named by their contents", soft_wrap=True)
    done = 0
    with progress_bar("read contents, MB", num_bytes // 10**6) as bar:

        def advance(more: int) -> None:
            nonlocal done
            done += more
            bar.to(done // 10**6)

        yield advance


def _read_one(root: str, name: str) -> tuple[Content, str]:
    path = f"{root}/{name}"
    with reading(path, READABLE):
        for _ in range(_TRIES):
            now = time.time_ns()
            with open(path, "rb", buffering=0) as file:
                before = os.fstat(file.fileno())
                content = Content(before.st_size, _digest(file, before.st_size))
                stamp, after = _stamp(before), _stamp(os.fstat(file.fileno()))
            if stamp == after:
                settled = is_settled(before.st_mtime_ns, before.st_ctime_ns, now)
                return content, f"{stamp} {name}" if settled else ""
    raise DataError(f"{path} changes while it is read", "wait until whoever writes it is done")


def _digest(file: BinaryIO, size: int) -> str:
    if size <= _PORTION_BYTES:
        return hashlib.sha256(file.read()).hexdigest()
    return hashlib.file_digest(file, "sha256").hexdigest()
