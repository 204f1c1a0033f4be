"""The choices of the groups: the files in ``conf/``, and what they instantiate."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ddoq.config.constructors import Constructor, constructor

#: The groups whose choices are instantiated.
COMPONENTS = (
    *("dataset", "encoder", "quantizer", "space", "weighting", "generator", "guidance"),
    *("selection", "method"),
    *("student", "teacher", "protocol"),
)
#: Those of which nothing has to be chosen.
OPTIONAL = ("guidance", "method")
_ROOT_KEY = re.compile(r"^\w+:")
_OF_HYDRA = ("defaults", "hydra")
_TARGET = re.compile(r"^ *_target_: (\S+)$", re.MULTILINE)


@cache
def conf_dir() -> Path:
    """Return the folder of YAML files: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    places = (package / "conf", package.parent / "conf")
    return next(folder for folder in places if (folder / "config.yaml").is_file())


@cache
def groups() -> tuple[str, ...]:
    """Return the groups that a user can choose from: the folders of ``conf/``."""
    folders = [path.name for path in conf_dir().iterdir() if path.is_dir()]
    return tuple(sorted(name for name in folders if name != "hydra"))


def files(group: str) -> dict[str, Path]:
    """Return the file of each choice of a group."""
    return {file.stem: file for file in sorted((conf_dir() / group).glob("*.yaml"))}


@cache
def sections() -> dict[str, str]:
    """Return the root's keys that are no groups (``measure``, ``trainer``, ``seed`` ...), each with
    its lines in ``config.yaml``, comments included.
    """
    lines = (conf_dir() / "config.yaml").read_text(encoding="utf-8").splitlines()
    of_key: dict[str, list[str]] = {}
    for line in lines:
        if _ROOT_KEY.match(line):
            of_key[line.partition(":")[0]] = block = []
        if line and of_key:
            block.append(line)
    return {key: "\n".join(block) for key, block in of_key.items() if key not in _OF_HYDRA}


@cache
def targets(group: str) -> dict[str, str]:
    """Return what the choices of a group instantiate, but for those that take it from others."""
    named = {
        choice: _TARGET.search(file.read_text(encoding="utf-8"))
        for choice, file in files(group).items()
    }
    return {choice: match[1] for choice, match in named.items() if match}


def constructors(group: str) -> dict[str, Constructor]:
    """Return the constructors of the choices of a group; see ``targets``."""
    return {choice: constructor(target) for choice, target in targets(group).items()}


def constructor_of(group: str, part: Any) -> Constructor | None:
    """Return the constructor of a component; ``None`` for what is none of its group."""
    target = part.get("_target_") if isinstance(part, Mapping) else None
    return constructor(target) if target in targets(group).values() else None
