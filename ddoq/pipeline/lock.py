"""One holder at a time, and no lock that needs a human: it goes with the process that holds it.

``flock`` does that where the file system has it: the kernel drops the lock when its process dies.
Elsewhere (NFS without a lock daemon, Lustre without ``-o flock``, some FUSE) the holder is a file
that names its process and whose time it renews. That file is void when its process is gone, or, on
another machine, when nobody has renewed it for ``PATIENCE`` seconds. (A machine that sleeps for
longer and goes on loses its lock without noticing.)
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from ddoq.utils.io import parse_json

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
PATIENCE, _BEAT, _POLL = 300.0, 20.0, 0.1  # seconds


def lock_path(folder: Path) -> Path:
    """Return the lock of an artefact's folder:
    beside it, so that the folder can be removed under it.
    """
    return folder.with_name(f".{folder.name}.lock")


@contextmanager
def hold(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock ``path`` during the block;
    yield whether it is held, which only ``wait=False`` may answer with no.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        file = _flock(path, wait)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        with _lease(path.with_suffix(".held"), wait) as held:
            yield held
        return
    try:
        yield file is not None
    finally:
        if file is not None:
            file.close()


def is_held(path: Path) -> bool:
    """Tell whether some process holds a lock, without a trace:
    also where nothing can be written.
    """
    lease = path.with_suffix(".held")
    if lease.exists():
        return not _is_void(_read(lease))
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such lock, or no locks at all
        return False
    return False


def _flock(path: Path, wait: bool) -> IO[str] | None:
    """Return the locked file, or ``None`` where another process has it."""
    while True:
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Whoever removes an artefact removes its lock, too:
            # a file without a name protects nothing.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BlockingIOError:
            file.close()
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()


# --- without flock ----------------------------------------------------------------------------


@contextmanager
def _lease(path: Path, wait: bool) -> Iterator[bool]:
    mine = json.dumps({**_holder(os.getpid()), "nonce": uuid.uuid4().hex})
    if not _take(path, mine, wait):
        yield False
        return
    done = threading.Event()
    beat = threading.Thread(target=_renew, args=(path, done), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        done.set()
        beat.join()
        if _read(path) == mine:
            path.unlink(missing_ok=True)


def _take(path: Path, mine: str, wait: bool) -> bool:
    seen, since = None, time.monotonic()
    while True:
        with suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
            file.write(mine)
            return True
        try:
            now = (_read(path), path.stat().st_mtime_ns)
        except FileNotFoundError:
            continue
        if now != seen:  # its time is only compared with itself: clocks of machines differ
            seen, since = now, time.monotonic()
        if _is_void(now[0]) or time.monotonic() - since > PATIENCE:
            _void(path, now[0])
        elif not wait:
            return False
        else:
            time.sleep(_POLL)


def _void(path: Path, content: str) -> None:
    """Remove a lease, but not the one of a process that was faster in removing it
    and has its own there now.
    """
    aside = path.with_name(f"{path.name}-{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        os.rename(path, aside)
        if aside.read_text(encoding="utf-8") != content:
            with suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()


def _renew(path: Path, done: threading.Event) -> None:
    while not done.wait(_BEAT):
        with suppress(OSError):
            os.utime(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _is_void(content: str) -> bool:
    """Tell whether the process of a lease is known to be gone.
    (Half a line is one that is just being written.)
    """
    try:
        owner = parse_json(content)
        return owner["host"] == _host() and _holder(owner["pid"])["started"] != owner["started"]
    except (ValueError, KeyError, TypeError):
        return False


def _holder(pid: int) -> dict[str, str | int | float | None]:
    try:
        started = psutil.Process(pid).create_time()
    except psutil.Error:
        started = None
    return {"host": _host(), "pid": pid, "started": started}


def _host() -> str:
    """Return what process numbers belong to: a machine, and in it a container."""
    try:
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()
