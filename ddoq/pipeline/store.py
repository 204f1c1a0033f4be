"""The artefact store: one folder per content key, finished if and only if its manifest exists.

    <root>/<stage>/<key>/            the files of the artefact
    <root>/<stage>/<key>/manifest.json   written last, atomically
    <root>/<stage>/.<key>.lock       held by the process that computes it (``ddoq.pipeline.lock``)
    <root>/ledger.jsonl              one line per computation, ever
    <root>/digests/                  what large inputs held when read (``ddoq.utils.digests``)

A killed process leaves a folder without a manifest.
It is not an artefact; the next process resumes in it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ddoq.errors import StoreError
from ddoq.pipeline import status
from ddoq.pipeline.cost import measure_cost
from ddoq.pipeline.graph import Node, data_key
from ddoq.pipeline.integrity import damage, describe, manifest_damage, seal
from ddoq.pipeline.keys import canonical
from ddoq.pipeline.lock import hold, lock_path
from ddoq.pipeline.provenance import provenance
from ddoq.utils.disk import disk_error
from ddoq.utils.io import ANY_TEMPORARY, parse_json, read_json, temporary_path, write_json

MANIFEST, LEDGER, DIGESTS = "manifest.json", "ledger.jsonl", "digests"
_REPAIR = "run `ddoq store repair`, then the same command again"


class Store:
    """Artefacts by content key, below ``root``."""

    def __init__(self, root: Path):
        self.root = Path(root)
        self._intact: set[str] = set()  # keys whose files this process wrote or hashed itself

    def path(self, node: Node) -> Path:
        """Return the folder of the node's artefact, whether it exists or not."""
        return self.root / node.stage / node.key

    def has(self, node: Node) -> bool:
        """Tell whether the artefact is finished, has the facts that are required of it, and every
        file has the size that its manifest states.
        """
        return self._state(node) == "finished"

    def is_outdated(self, node: Node) -> bool:
        """Tell whether the artefact is whole and lacks facts that are required of it."""
        return self._state(node) == "outdated"

    def _state(self, node: Node) -> str:
        folder = self.path(node)
        try:
            manifest = read_json(folder / MANIFEST)
            sizes = {name: file["bytes"] for name, file in manifest["files"].items()}
            if any((folder / name).stat().st_size != size for name, size in sizes.items()):
                return "damaged"
            return "finished" if {*node.required} <= {*manifest["facts"]} else "outdated"
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return "damaged"

    def manifest(self, node: Node) -> dict[str, Any]:
        """Return the manifest of a finished artefact.

        Raises:
            StoreError: the artefact is missing, or was made from something else
                than ``node`` describes.
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
                f"{path} was made from another configuration than its key says", _REPAIR
            )
        return manifest

    def intact(self, node: Node) -> Path:
        """Return the folder of an artefact that something is about to be computed from,
        its files hashed.

        Once per process and artefact: a bad sector or a file that somebody opened and saved must
        not become a wrong number. 10 GB of latents take 6 s to 10 s, and nothing that is computed
        from them takes less than minutes. Finished results and reports are taken as they are
        (``has`` looks at sizes).

        Raises:
            StoreError: the artefact is missing or damaged.
        """
        if node.key not in self._intact:
            folder, manifest = self.path(node), self.manifest(node)
            damages = manifest_damage(manifest, node.stage, node.key) or damage(
                folder, manifest["files"]
            )
            if damages:
                raise StoreError(f"{folder} is damaged: {damages[0]}", _REPAIR)
            self._intact.add(node.key)
        return self.path(node)

    def discard(self, node: Node) -> None:
        """Remove an artefact so that it is computed again."""
        with self._claim(node), _readable_disk_errors(self.root):
            remove(self.path(node))

    def ensure(self, node: Node, compute: Callable[[Path], dict], wait: bool = True) -> bool | None:
        """Make sure that the artefact exists; return whether ``compute(folder)`` had to run.

        ``compute`` finds in ``folder`` what an interrupted process left and returns the artefact's
        facts. Only one process computes a key; the others wait for it and then find it finished,
        or, with ``wait=False``, get ``None`` at once and can do something else meanwhile.
        """
        if self.has(node):
            return False
        with self._claim(node, wait) as claimed, _readable_disk_errors(self.root):
            if not claimed:
                return None
            if self.has(node):
                return False
            folder = self.path(node)
            # Finished once and damaged since: none of its files can be trusted. What is
            # merely outdated stays until it is replaced: should it be refused now, the next
            # run has to look again.
            if (folder / MANIFEST).exists() and not self.is_outdated(node):
                remove(folder)
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.rglob(ANY_TEMPORARY):
                leftover.unlink(missing_ok=True)
            with measure_cost() as cost:
                facts = compute(folder)
            self._commit(node, facts, cost)
        return True

    def _commit(self, node: Node, facts: dict, cost: dict) -> None:
        folder = self.path(node)
        files = describe(folder)
        files.pop(MANIFEST, None)  # an outdated one, about to be replaced
        cost["bytes"] = sum(file["bytes"] for file in files.values())
        manifest = {
            "key": node.key,
            "title": node.title,
            "body": canonical(node.body),
            "facts": facts,
            "cost": cost,
            "files": files,
            "provenance": provenance(),
        }
        write_json(folder / MANIFEST, manifest | {"seal": seal(manifest)})
        self._intact.add(node.key)
        line = {
            "time": round(time.time(), 3),
            "stage": node.stage,
            "key": node.key,
            "title": node.title,
            "data": data_key(node),
            "pid": os.getpid(),
            **cost,
        }
        with (self.root / LEDGER).open("a", encoding="utf-8") as ledger:
            ledger.write(json.dumps(line) + "\n")

    @contextmanager
    def _claim(self, node: Node, wait: bool = True) -> Iterator[bool]:
        """Hold the node's lock; yield whether it is held,
        which only ``wait=False`` may answer with no.
        """
        folder = self.path(node)
        with _readable_disk_errors(self.root), ExitStack() as stack:
            folder.parent.mkdir(parents=True, exist_ok=True)
            held = stack.enter_context(hold(lock_path(folder), wait=False))
            if wait and not held:
                with status.current().waiting(node):
                    held = stack.enter_context(hold(lock_path(folder)))
            yield held


def read_ledger(root: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a store's ledger, the oldest first.

    What a full disk or a kill cut short is passed over.
    """
    try:
        text = (root / LEDGER).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        with suppress(ValueError):
            if isinstance(entry := parse_json(line), dict):
                yield entry


def remove(folder: Path) -> None:
    """Remove an artefact whose lock is held;
    killed half-way, it leaves nothing that looks like work to resume.
    """
    if folder.exists():
        aside = temporary_path(folder)
        os.rename(folder, aside)
        shutil.rmtree(aside)


@contextmanager
def _readable_disk_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        readable = disk_error(error, root)
        if readable is None:
            raise
        raise readable from error
