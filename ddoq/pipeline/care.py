"""Look after a store: find damage, remove it, remove what no run needs.

Nothing is removed without its lock.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ddoq.pipeline.integrity import damage, files_below, manifest_damage
from ddoq.pipeline.lock import hold, is_held, lock_path
from ddoq.pipeline.plans import keys_by_run
from ddoq.pipeline.stages import STAGES
from ddoq.pipeline.store import MANIFEST, remove
from ddoq.pipeline.survey import Artefact, last_change, survey
from ddoq.utils.console import progress_bar
from ddoq.utils.io import TEMPORARY, read_json

HOUR, DAY = 3_600.0, 86_400.0
STATES = ("intact", "damaged", "stray", "unfinished", "computing")


@dataclass(frozen=True)
class Finding:
    """What an artefact's folder is found to be.

    Attributes:
        folder: the artefact.
        state: ``intact``, ``damaged`` (its manifest or a file of it), ``stray`` (intact, with
            files that are not its own), ``unfinished`` (what a killed process left, to be
            resumed) or ``computing``.
        lines: what is wrong, one line per file.
    """

    folder: Path
    state: str
    lines: tuple[str, ...] = ()


def verify(folders: Iterable[Path]) -> list[Finding]:
    """Read every byte of some artefacts; return what each is found to be."""
    folders, findings = list(folders), []
    with progress_bar("verify", len(folders)) as bar:
        for folder in folders:
            findings.append(examine(folder))
            bar.advance()
    return findings


def examine(folder: Path) -> Finding:
    """Compare an artefact with its manifest, and its manifest with its key."""
    try:
        manifest = read_json(folder / MANIFEST)
    except FileNotFoundError:
        return Finding(folder, "computing" if is_held(lock_path(folder)) else "unfinished")
    except (OSError, ValueError):
        return Finding(folder, "damaged", (f"{MANIFEST}: it cannot be read",))
    lines = manifest_damage(manifest, folder.parent.name, folder.name) or damage(
        folder, manifest["files"]
    )
    if lines:
        return Finding(folder, "damaged", tuple(lines))
    strange = sorted(set(files_below(folder)) - {MANIFEST, *manifest["files"]})
    return Finding(
        folder,
        "stray" if strange else "intact",
        tuple(f"{name}: not of this artefact" for name in strange),
    )


def repair(findings: Iterable[Finding]) -> Iterator[tuple[Finding, str]]:
    """Remove damaged artefacts whole, and from intact ones the stray files;
    return what was done about each.

    Each is looked at again under its lock: since it was found, a run may have computed it anew.
    """
    for finding in findings:
        if finding.state not in ("damaged", "stray"):
            continue
        with _own(finding.folder) as mine:
            if not mine:
                yield finding, "left alone: a process is at work on it"
                continue
            now = examine(finding.folder)
            if now.state == "damaged":
                remove(now.folder)
            elif now.state == "stray":
                for line in now.lines:
                    (now.folder / line.rsplit(": ", 1)[0]).unlink(missing_ok=True)
        yield (
            finding,
            {"damaged": "removed", "stray": "stray files removed"}.get(
                now.state, "found in order now"
            ),
        )


@contextmanager
def _own(folder: Path) -> Iterator[bool]:
    """Hold an artefact's lock if nobody else does; with the artefact, its lock goes, too."""
    with hold(lock_path(folder), wait=False) as mine:
        try:
            yield mine
        finally:
            if mine and not folder.exists():
                lock_path(folder).unlink(missing_ok=True)


def remove_made_from(root: Path, key: str) -> int:
    """Remove what was made from an artefact, and what was made from that;
    return how many were removed.

    For an artefact that was computed again under its key and came out otherwise: what stands on the
    earlier one is wrong under a name that says nothing of it.
    """
    inputs = {}
    for artefact in survey(root):
        try:
            manifest = read_json(artefact.folder / MANIFEST)
            inputs[artefact.folder] = set(manifest["body"]["inputs"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # unfinished or damaged: no run takes it for what it is not
    wrong, removed = {key}, 0
    for stage in STAGES:  # inputs are of earlier stages
        for folder in [
            folder for folder in inputs if folder.parent.name == stage and inputs[folder] & wrong
        ]:
            wrong.add(folder.name)
            with _own(folder) as mine:
                if mine:
                    remove(folder)
                    removed += 1
    return removed


def unneeded(outputs: Path, keep_days: float) -> list[Artefact]:
    """Return what no run refers to and nobody has written for ``keep_days``: finished,
    unfinished or half removed.

    Raises:
        StoreError: see ``keys_by_run``.
    """
    needed = set().union(*keys_by_run(outputs).values())
    latest = time.time() - keep_days * DAY
    return [
        artefact
        for artefact in survey(outputs / "store")
        if artefact.key not in needed
        and artefact.time <= latest
        and not is_held(lock_path(artefact.folder))
    ]


def collect(outputs: Path, candidates: Iterable[Artefact]) -> Iterator[Artefact]:
    """Remove artefacts that ``unneeded`` found; return those that could be removed.

    Runs write their plan before they compute, so the plans are read once more for what was planned
    meanwhile; a run that plans one of these in the instants after that stops with two lines, and
    computes it when it is started again.
    """
    needed = set().union(*keys_by_run(outputs).values())
    for artefact in candidates:
        with _own(artefact.folder) as mine:
            if mine and artefact.key not in needed and _unchanged(artefact):
                remove(artefact.folder)
                yield artefact


def _unchanged(artefact: Artefact) -> bool:
    try:
        return last_change(artefact.folder) == artefact.time
    except FileNotFoundError:  # another gc was faster
        return False


def half_removed(root: Path) -> list[Path]:
    """Return folders that a process, killed since, renamed in order to remove them:
    no live one takes an hour.
    """
    latest = time.time() - HOUR
    return sorted(path for path in root.glob(f"*/{TEMPORARY}*") if path.stat().st_ctime <= latest)
