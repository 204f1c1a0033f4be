"""The artefact store: one folder per content key, finished if and only if its manifest exists.

    <root>/<stage>/<key>/            the files of the artefact
    <root>/<stage>/<key>/manifest.json   written last, atomically
    <root>/<stage>/.<key>.lock       held by the process that computes it
    <root>/ledger.jsonl              one line per computation, ever

A killed process leaves a folder without a manifest. It is not an artefact; the next process resumes in it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ddoq.errors import StoreError
from ddoq.pipeline import status
from ddoq.pipeline.cost import measure_cost
from ddoq.pipeline.graph import Node, data_key
from ddoq.pipeline.keys import canonical
from ddoq.pipeline.provenance import provenance
from ddoq.utils.io import TEMPORARY, file_digest, read_json, write_json

MANIFEST = "manifest.json"


class Store:
    """Artefacts by content key, below ``root``."""

    def __init__(self, root: Path):
        self.root = Path(root)

    def path(self, node: Node) -> Path:
        """Return the folder of the node's artefact, whether it exists or not."""
        return self.root / node.stage / node.key

    def has(self, node: Node) -> bool:
        """Tell whether the artefact is finished and every file has the size its manifest states."""
        folder = self.path(node)
        try:
            files = read_json(folder / MANIFEST)["files"]
            return all((folder / name).stat().st_size == file["bytes"] for name, file in files.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def manifest(self, node: Node) -> dict[str, Any]:
        """Return the manifest of a finished artefact.

        Raises:
            StoreError: the artefact is missing, or was made from something else than ``node`` describes.
        """
        path = self.path(node) / MANIFEST
        try:
            manifest = read_json(path)
        except (OSError, ValueError) as error:
            raise StoreError(
                f"no finished artefact at {path.parent}", f"compute it with run.until={node.stage}"
            ) from error
        if not isinstance(manifest, dict) or manifest.get("body") != canonical(node.body):
            raise StoreError(
                f"{path} was made from another configuration than its key says", f"remove {path.parent} and run again"
            )
        return manifest

    def discard(self, node: Node) -> None:
        """Remove an artefact so that it is computed again: the manifest first, then the files."""
        with self._claim(node), _readable_disk_errors(self.root):
            self._remove(self.path(node))

    @staticmethod
    def _remove(folder: Path) -> None:
        (folder / MANIFEST).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)

    def ensure(self, node: Node, compute: Callable[[Path], dict], wait: bool = True) -> bool | None:
        """Make sure that the artefact exists; return whether ``compute(folder)`` had to run.

        ``compute`` finds in ``folder`` what an interrupted process left and returns the artefact's facts.
        Only one process computes a key; the others wait for it and then find it finished, or, with ``wait=False``,
        get ``None`` at once and can do something else meanwhile.
        """
        if self.has(node):
            return False
        with self._claim(node, wait) as claimed, _readable_disk_errors(self.root):
            if not claimed:
                return None
            if self.has(node):
                return False
            folder = self.path(node)
            if (folder / MANIFEST).exists():  # finished once and damaged since: none of its files can be trusted
                self._remove(folder)
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.rglob(f"{TEMPORARY}*"):
                leftover.unlink(missing_ok=True)
            with measure_cost() as cost:
                facts = compute(folder)
            self._commit(node, facts, cost)
        return True

    def _commit(self, node: Node, facts: dict, cost: dict) -> None:
        folder = self.path(node)
        files = {
            str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        cost["bytes"] = sum(file["bytes"] for file in files.values())
        write_json(
            folder / MANIFEST,
            {
                "key": node.key,
                "title": node.title,
                "body": canonical(node.body),
                "facts": facts,
                "cost": cost,
                "files": files,
                "provenance": provenance(),
            },
        )
        line = {
            "time": round(time.time(), 3),
            "stage": node.stage,
            "key": node.key,
            "title": node.title,
            "data": data_key(node),
            "pid": os.getpid(),
            **cost,
        }
        with (self.root / "ledger.jsonl").open("a", encoding="utf-8") as ledger:
            ledger.write(json.dumps(line) + "\n")

    @contextmanager
    def _claim(self, node: Node, wait: bool = True) -> Iterator[bool]:
        """Hold the node's lock; yield whether it was to be had. The kernel drops it when the process dies, so no lock
        ever needs a human.
        """
        folder = self.path(node).parent
        with _readable_disk_errors(self.root):
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / f".{node.key}.lock").open("w")
        try:
            claimed = True
            try:
                claimed = _lock(lock, node, wait)
            except OSError as error:
                # A file system without locks: both processes may compute, and the atomic manifest keeps it right.
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
            yield claimed
        finally:
            lock.close()


def _lock(handle: IO, node: Node, wait: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # another process computes the node
        if wait:
            with status.current().waiting(node):
                fcntl.flock(handle, fcntl.LOCK_EX)
        return wait
    return True


@contextmanager
def _readable_disk_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        readable = disk_error(error, root)
        if readable is None:
            raise
        raise readable from error


def disk_error(error: BaseException, root: Path | str) -> StoreError | None:
    """Return what a full, read-only or forbidden disk means to a user; ``None`` for any other error.

    Libraries wrap the operating system's error (safetensors in one of its own, Hydra in none), so the whole chain
    of causes and the message are looked at.
    """
    full, forbidden = (errno.ENOSPC, errno.EDQUOT), (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number in full or "os error 28" in str(error):
            return StoreError(
                f"the disk of {root} is full",
                "free some space, or set paths.outputs to another disk; finished artefacts are kept",
            )
        if number in forbidden:
            return StoreError(
                f"cannot write {error.filename or root}: {os.strerror(number)}",
                "set paths.outputs to a folder that you may write to",
            )
        error = error.__cause__ or error.__context__
    return None
