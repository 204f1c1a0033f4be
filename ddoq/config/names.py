"""Names of run folders, derived from the configuration."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ddoq.config.arms import arm_name
from ddoq.config.complete import completed
from ddoq.config.form import check_form
from ddoq.config.secrets import register_env_resolver
from ddoq.pipeline.keys import digest, settled
from ddoq.utils.paths import expand_path, expand_paths

_LONGEST = 120  # bytes of a readable name; file systems take 255 of a whole one

#: Parts of the configuration that cannot change a result.
NOT_IDENTITY = ("paths", "run", "sweep", "trainer", "logger", "hydra")


def run_name(config: Mapping[str, Any]) -> str:
    """Return the name of a run's folder: readable first,
    and unique by the identity of its configuration.
    """
    identity = {name: part for name, part in config.items() if name not in NOT_IDENTITY}
    readable = f"{config['dataset']['name']}-{arm_name(config)}"
    key = digest(settled(identity, "run"))[:8]
    return f"{file_name(readable)}-ipc{config['ipc']}-s{config['seed']}-{key}"


def command_line(overrides: Sequence[str]) -> str:
    """Return the command of a run by its overrides,
    without those that only say how far it was to go at the time.
    """
    words = [word for word in overrides if not word.startswith(("run.", "sweep."))]
    return shlex.join(["ddoq", *words])


def file_name(text: str) -> str:
    """Return a text as the name of a file: Hydra makes a run's folder
    before anybody has looked at the names.
    """
    name = re.sub(r"[^\w.,+=@-]+", "-", text).lstrip(".-")
    return name.encode()[:_LONGEST].decode(errors="ignore") or "unnamed"


def register_resolvers() -> None:
    """Register what Hydra's folders are named by; ``${oc.env:...}`` refuses secrets."""

    def resolve(*, _root_: DictConfig) -> str:
        """Name the run of a configuration, or raise ConfigError where it is none."""
        plain = {
            name: OmegaConf.to_container(_root_[name], resolve=True)
            if OmegaConf.is_config(_root_[name])
            else _root_[name]
            for name in _root_
            if name not in NOT_IDENTITY
        }
        plain = completed(plain)
        # Hydra asks for the name before anything else looks.
        check_form(plain, without=NOT_IDENTITY)
        return run_name(expand_paths(plain))

    def outputs(*, _root_: DictConfig) -> str:
        """Return ``paths.outputs``, or raise ConfigError where it is no folder's."""
        return expand_path(_root_.paths.outputs, "paths.outputs")

    OmegaConf.register_new_resolver("run_name", resolve, replace=True)
    OmegaConf.register_new_resolver("outputs", outputs, replace=True)
    OmegaConf.register_new_resolver("file_name", file_name, replace=True)
    register_env_resolver()
