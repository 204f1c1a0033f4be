"""Configuration files from elsewhere: looked through before Hydra reads them, since Hydra acts on some of it at once.

Its callbacks and the handlers of its logging are whatever the files name, called before ddoq sees the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.utils import get_args_parser

from ddoq.config.schema import COMPONENTS
from ddoq.config.secrets import check_words
from ddoq.errors import ConfigError

#: By these keys Hydra or Python's logging calls what a file names, or reads more files.
_CALLS = ("()", "class", "callbacks", "searchpath")
_KNOWN = {schema._target_ for choices in COMPONENTS.values() for schema in choices.values()}
_PLUGINS = ("hydra_plugins.", "hydra._internal.core_plugins.", "optuna.samplers.")  # launchers, sweepers and a part


def check_command_line(arguments: Sequence[str]) -> None:
    """Raise ConfigError where a command line would load a pickle, run foreign code, or write a secret down."""
    check_words(arguments)
    known, _ = get_args_parser().parse_known_args(arguments)
    if known.experimental_rerun:
        raise ConfigError(
            "--experimental-rerun: Hydra would load a pickle, which can run anything", "repeat the run's own command"
        )
    paths = [word for word in known.overrides if word.lstrip("+").startswith("hydra.searchpath=")]
    named = [place for word in paths for place in re.findall(r"[^\[\],'\"\s]+", word.split("=", 1)[1])]
    for folder in filter(None, [known.config_dir, known.config_path, *named]):
        for file in sorted(Path(folder.removeprefix("file://")).rglob("*.y*ml")):
            _check_file(file)


def _check_file(file: Path) -> None:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"{file} is no plain YAML ({said[:200]})", "correct the file, or take it away") from error
    for path, name in _called(content, ""):
        raise ConfigError(
            f"{file}: {path} would call or read '{name}', which is none of ddoq's components",
            "take it out of the file; on the command line, `hydra...` can still be set",
        )


def _called(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the path and the name of whatever would be called."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        here = f"{path}.{key}" if path else str(key)
        known = key == "_target_" and (str(inner) in _KNOWN or str(inner).startswith(_PLUGINS))
        if key in _CALLS or (key == "_target_" and not known):
            yield here, inner
        yield from _called(inner, here)
