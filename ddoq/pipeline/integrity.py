"""What an artefact's files were when it was finished, and whether they still are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ddoq.pipeline.keys import digest
from ddoq.utils.io import file_digest

_THREADS = 4  # hashing releases the interpreter, and disks like several readers


def describe(folder: Path) -> dict[str, dict[str, Any]]:
    """Return bytes and sha256 of every file below a folder, by relative path."""

    def of(name: str) -> dict[str, Any]:
        return {"bytes": (folder / name).stat().st_size, "sha256": file_digest(folder / name)}

    names = files_below(folder)
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(names, pool.map(of, names), strict=True))


def files_below(folder: Path) -> list[str]:
    """Return the relative paths of all files below a folder, sorted."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def damage(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one line per file that is not what ``describe`` saw; every byte is read."""
    with ThreadPoolExecutor(_THREADS) as pool:
        damages = pool.map(lambda name: _damage(folder / name, files[name]), files)
        return [f"{name}: {what}" for name, what in zip(files, damages, strict=True) if what]


def _damage(path: Path, file: Mapping[str, Any]) -> str | None:
    try:
        size = path.stat().st_size
        if size != file["bytes"]:
            return f"{size:,} bytes instead of {file['bytes']:,}"
        return None if file_digest(path) == file["sha256"] else "its content has changed (sha256)"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def seal(manifest: Mapping[str, Any]) -> str:
    """Return a hash of all that a manifest says:
    the results of ``evaluate`` stand in manifests, not in files.
    """
    content = json.loads(
        json.dumps(
            {name: value for name, value in manifest.items() if name != "seal"}, allow_nan=False
        )
    )
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def manifest_damage(manifest: Any, stage: str, key: str) -> list[str]:
    """Return what is wrong with the manifest that lies at ``stage/key``: a line, or nothing."""
    try:
        body, sealed = manifest["body"], manifest.get("seal")
        if digest(body) != key or body["stage"] != stage:
            return [f"manifest.json: it describes {body['stage']}/{digest(body)}"]
        dict(manifest["files"]), dict(manifest["facts"])
        return (
            [] if sealed in (None, seal(manifest)) else ["manifest.json: its content has changed"]
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return ["manifest.json: it is not a manifest"]
