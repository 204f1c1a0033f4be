"""Paths as people write them in configurations and on command lines,
made those of folders; once, here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddoq.errors import ConfigError

_OF_COMPONENTS = ("path", "root")  # the fields of components that hold one


def expand_paths(part: Any, key: str = "") -> Any:
    """Return a resolved configuration, or a part of it,
    in which every path is as ``expand_path`` returns it.

    Raises:
        ConfigError: see ``expand_path``.
    """
    if isinstance(part, Mapping):
        return {
            name: expand_paths(value, f"{key}.{name}" if key else str(name))
            for name, value in part.items()
        }
    if isinstance(part, list):
        return [expand_paths(value, f"{key}.{number}") for number, value in enumerate(part)]
    return expand_path(part, key) if isinstance(part, str) and is_path(key) else part


def is_path(key: str) -> bool:
    """Tell whether a path stands at a dotted key of the configuration."""
    return key.startswith("paths.") or key.rpartition(".")[2] in _OF_COMPONENTS


def expand_path(path: str, key: str) -> str:
    """Return a path with the home folder in place of ``~``.

    Args:
        path: as it was written.
        key: of the configuration, for errors.

    Raises:
        ConfigError: it names the home of nobody here, or no folder but a URL.
    """
    if "://" in path:
        local = path.removeprefix("file://").removeprefix("https://huggingface.co/")
        remedy = f"set {key}={local}" if local != path else "give the folder where it is mounted"
        raise ConfigError(f"{key}: {path} is a URL, and only folders are read and written", remedy)
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        user = path.partition("/")[0][1:]
        reason = (
            f"there is no user '{user}' on this machine" if user else "the home folder is not known"
        )
        here = f"'{key}=\"./{path}\"'"
        raise ConfigError(
            f"{key}: {path}: {reason}", f"write the whole path, or {here} for a folder of that name"
        )
    # Arrow takes exp:1/x for a URL, but not /here/exp:1/x.
    if ":" in expanded and not key.endswith("path"):
        return os.path.abspath(expanded)
    return expanded


def as_folder(text: str) -> Path:
    """Return the folder that an argument of a command names."""
    return Path(expand_path(text, "--outputs"))
