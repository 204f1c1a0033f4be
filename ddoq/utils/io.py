"""Atomic files, checksums and links, and damaged files. Nothing here knows what the bytes mean."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import shorten
from typing import Any

import psutil

from ddoq.errors import DataError, DdoqError

TEMPORARY = ".tmp-"  # prefix of every file that is not finished yet
#: With what safetensors makes beside them (.tmpczUHYo) and leaves when it is killed.
ANY_TEMPORARY = ".tmp*"
READABLE = "make it readable, or move it away"  # the remedy for an unreadable file


def temporary_path(path: Path) -> Path:
    """Return a sibling of ``path`` that is this process's own,
    among those of all machines that share the disk.
    """
    return path.with_name(f"{TEMPORARY}{platform.node()}-{os.getpid()}-{path.name}")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path``;
    it takes the name ``path`` only when the block succeeds.

    A reader sees the whole file or none, whenever the writer is killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove from a folder that is nobody's alone the temporary files whose writers are gone.

    These are killed processes of this machine, and, since nobody knows about those of others,
    whatever is a day old.
    """
    mine = f"{TEMPORARY}{platform.node()}-"
    for path in folder.glob(f"{TEMPORARY}*"):
        pid = path.name.removeprefix(mine).partition("-")[0] if path.name.startswith(mine) else ""
        with suppress(FileNotFoundError):
            if (
                pid.isdecimal() and not _is_alive(int(pid))
            ) or path.lstat().st_mtime < time.time() - 86_400:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _is_alive(pid: int) -> bool:
    """Tell whether another process has this number;
    this one has nothing half-written when it looks.
    """
    return pid != os.getpid() and psutil.pid_exists(pid)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as readable JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ValueError where it is none."""
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str) -> Any:
    """Return the value of a JSON text. Raises ValueError where it is none, or too deep."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


@contextmanager
def reading(path: Path | str, remedy: str, kind: type[DdoqError] = DataError) -> Iterator[None]:
    """Turn whatever a library raises over the damaged bytes of a file into two lines."""
    try:
        yield
    except DdoqError:
        raise
    except Exception as error:
        why = shorten(str(error) or type(error).__name__, 200, placeholder=" …")
        raise kind(f"{path} cannot be read ({why})", remedy) from error


def write_jsonl(path: Path, rows: list[dict]) -> None:
    """Write one JSON object per line, atomically."""
    write_text(path, "".join(json.dumps(row, sort_keys=False) + "\n" for row in rows))


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """Give ``source`` a second name without a second copy where the file system allows it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
