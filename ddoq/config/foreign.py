"""Configuration files from elsewhere: looked through before Hydra reads them,
since Hydra acts on some of it at once.

Its callbacks and the handlers of its logging are whatever the files name,
called before ddoq sees the configuration.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.utils import get_args_parser

from ddoq.config.choices import COMPONENTS, targets
from ddoq.errors import ConfigError

#: By these keys Hydra, its sweepers or Python's logging call what a file names, or read more files.
_CALLS = ("()", "class", "callbacks", "custom_search_space", "searchpath")
#: Launchers, sweepers and a part of one: a path that ends elsewhere may lead through them
#: to anything they import.
_PLUGIN = re.compile(
    r"(hydra_plugins|hydra\._internal\.core_plugins)\.[a-z_.]+\.[A-Z]\w*(Launcher|Sweeper)"
    r"|optuna\.samplers\.\w+Sampler"
)


def check_command_line(arguments: Sequence[str], relative_to: Path) -> None:
    """Raise ConfigError where a command line would load a pickle,
    or files that call what is none of ddoq's.

    Args:
        arguments: of Hydra.
        relative_to: folder to which Hydra takes ``--config-path`` to be relative.
    """
    parsed, _ = get_args_parser().parse_known_args(arguments)
    if parsed.experimental_rerun:
        raise ConfigError(
            "--experimental-rerun: Hydra would load a pickle, which can run anything",
            "repeat the run's own command",
        )
    paths = [word for word in parsed.overrides if word.lstrip("+ ").startswith("hydra.searchpath")]
    named = [
        place for word in paths for place in re.findall(r"[^\[\],'\"\s]+", word.partition("=")[2])
    ]
    folders = [
        Path(place.removeprefix("file://")) for place in (parsed.config_dir, *named) if place
    ]
    for folder in [*folders, *([relative_to / parsed.config_path] if parsed.config_path else [])]:
        for file in _files(folder):
            _check_file(file)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the YAML files below a folder, links followed, as Hydra does."""
    seen = set()
    for place, inner, files in os.walk(folder, followlinks=True):
        inner[:] = sorted(inner) if os.path.realpath(place) not in seen else []
        seen.add(os.path.realpath(place))
        yield from (
            Path(place) / name for name in sorted(files) if name.endswith((".yaml", ".yml"))
        )


def _check_file(file: Path) -> None:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        called = list(_called(content, ""))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        message = " ".join(str(error).split())
        raise ConfigError(
            f"{file} is no plain YAML ({message[:200]})", "correct the file, or take it away"
        ) from error
    for path, name in called:
        raise ConfigError(
            f"{file}: {path} would call or read '{name}', which is none of ddoq's components",
            "take it out of the file; on the command line, `hydra...` can still be set",
        )


def _called(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the path and the name of whatever would be called or imported."""
    ours = {target for group in COMPONENTS for target in targets(group).values()}
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        here, text = f"{path}.{key}" if path else str(key), inner if isinstance(inner, str) else ""
        is_known = key == "_target_" and (text in ours or _PLUGIN.fullmatch(text))
        # Python's logging imports these.
        is_imported = text.startswith("ext://") and not text.startswith("ext://sys.std")
        if key in _CALLS or (key == "_target_" and not is_known) or is_imported:
            yield here, inner
        yield from _called(inner, here)
