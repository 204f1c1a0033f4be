"""What a full, read-only or forbidden disk means to a user."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ddoq.errors import StoreError

_FULL = (errno.ENOSPC, errno.EDQUOT)


_FORBIDDEN = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.EISDIR,
)


def disk_error(error: BaseException, root: Path | str | None) -> StoreError | None:
    """Return what a full, read-only or forbidden disk means to a user;
    ``None`` for any other error.

    Libraries wrap the operating system's error (safetensors in one of its own, Hydra in none), so
    the whole chain of causes and the message are looked at.

    Args:
        error: what was raised.
        root: ``paths.outputs`` or a folder in it, if it is known:
            what lies elsewhere is not to be mended by that key.
    """
    while error is not None:
        number, place = (
            (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
        )
        elsewhere = (
            root is not None and isinstance(place, str) and _is_elsewhere(Path(place), Path(root))
        )
        if number in _FULL or "os error 28" in str(error):
            where = place if elsewhere else root or "paths.outputs"
            another = (
                ""
                if elsewhere
                else ", or set paths.outputs to another disk; finished artefacts are kept"
            )
            return StoreError(f"the disk of {where} is full", f"free some space{another}")
        if number in _FORBIDDEN:
            remedy = (
                "make it writable"
                if elsewhere
                else "set paths.outputs to a folder that you may write to"
            )
            another = (
                ", or set what names it to another folder (HOME, HF_HOME, TORCH_HOME ...)"
                if elsewhere
                else ""
            )
            return StoreError(
                f"cannot write {place or root}: {os.strerror(number)}", remedy + another
            )
        error = error.__cause__ or error.__context__
    return None


def _is_elsewhere(place: Path, root: Path) -> bool:
    return place.is_absolute() and not place.resolve().is_relative_to(root.resolve())
