"""What lies in a store, without opening what need not be opened:
names from folders, the rest from the ledger.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ddoq.errors import StoreError, did_you_mean
from ddoq.pipeline.keys import KEY_LENGTH
from ddoq.pipeline.stages import STAGES
from ddoq.pipeline.store import DIGESTS, LEDGER, MANIFEST, read_ledger
from ddoq.utils.io import TEMPORARY, read_json

_KEY = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """A folder of the store.

    Attributes:
        root: of the store.
        stage: that made it.
        key: its content key.
        finished: whether it has a manifest; without one,
            a process computes it or was killed doing so.
        title: for people; empty where nobody knows it.
        num_bytes: of all its files; an image with two names counts twice.
        seconds: that computing it took.
        time: of its manifest, or of the last change of what is not finished; seconds since 1970.
    """

    root: Path
    stage: str
    key: str
    finished: bool
    title: str
    num_bytes: int
    seconds: float
    time: float

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.root / self.stage / self.key


def keys(root: Path, stage: str) -> list[str]:
    """Return the keys of all artefacts of a stage, finished or not."""
    try:
        with os.scandir(root / stage) as entries:
            return sorted(entry.name for entry in entries if _KEY.fullmatch(entry.name))
    except FileNotFoundError:
        return []


def survey(root: Path, stages: Iterable[str] = STAGES) -> list[Artefact]:
    """Return all artefacts of some stages. 50,000 finished ones take about a second,
    and no manifest is opened.
    """
    ledger = _ledger(root)
    artefacts = []
    for stage in stages:
        for key in keys(root, stage):
            with suppress(FileNotFoundError):  # removed since it was listed
                artefacts.append(_look(root, stage, key, ledger.get(key)))
    return artefacts


def _look(root: Path, stage: str, key: str, line: Mapping[str, Any] | None) -> Artefact:
    artefact = partial(Artefact, root=root, stage=stage, key=key)
    try:
        time = os.stat(f"{root}/{stage}/{key}/{MANIFEST}").st_mtime
    except OSError:
        folder = root / stage / key
        num_bytes = sum(file.st_size for file in _files(folder))
        return artefact(
            finished=False,
            title="",
            num_bytes=num_bytes,
            seconds=0.0,
            time=last_change(folder),
        )
    try:
        # Killed between its manifest and its line of the ledger, or copied from another store.
        if line is None:
            manifest = read_json(root / stage / key / MANIFEST)
            line = {"title": manifest["title"], **manifest["cost"]}
        return artefact(
            finished=True,
            title=line["title"],
            num_bytes=line["bytes"],
            seconds=line["seconds"],
            time=time,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return artefact(finished=True, title="(damaged)", num_bytes=0, seconds=0.0, time=time)


def last_change(folder: Path) -> float:
    """Return when an artefact was finished, or when something changed in one that is not;
    seconds since 1970.
    """
    try:
        return os.stat(folder / MANIFEST).st_mtime
    except OSError:
        return max(status.st_mtime for status in [folder.lstat(), *_files(folder)])


def _files(folder: Path) -> list[os.stat_result]:
    files = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # removed since it was listed
            if not path.is_dir():
                files.append(path.lstat())
    return files


def _ledger(root: Path) -> dict[str, dict[str, Any]]:
    """Return the last line of every key."""
    return {line["key"]: line for line in read_ledger(root) if isinstance(line.get("key"), str)}


def strays(root: Path) -> list[Path]:
    """Return what lies beside the artefacts and is not the store's:
    lock, ledger, digests, stage.
    """
    own = {LEDGER, DIGESTS, *STAGES}
    unowned = [path for path in root.iterdir() if path.name not in own]
    for stage in STAGES:
        if (root / stage).is_dir():
            unowned += [path for path in (root / stage).iterdir() if not _is_own(path)]
    return sorted(unowned)


def _is_own(path: Path) -> bool:
    lock = path.name.startswith(".") and path.suffix in (".lock", ".held")
    return (
        lock
        or path.name.startswith(TEMPORARY)
        or (bool(_KEY.fullmatch(path.name)) and path.is_dir())
    )


def artefact_folders(root: Path, names: Iterable[str]) -> list[Path]:
    """Return the folders that keys (the first digits do) or stages name;
    all of them without any name.

    Raises:
        StoreError: a name is neither a stage nor the beginning of a key.
    """
    there = [root / stage / key for stage in STAGES for key in keys(root, stage)]
    names = list(names)
    chosen: dict[Path, None] = {}
    for name in names:
        of_name = [path for path in there if name == path.parent.name or path.name.startswith(name)]
        if not of_name and name not in STAGES:
            raise StoreError(
                f"the store has no stage and no key '{name}'",
                did_you_mean(name, {path.parent.name for path in there}),
            )
        chosen |= dict.fromkeys(of_name)
    return list(chosen) if names else there
