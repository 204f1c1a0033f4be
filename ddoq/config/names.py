"""Names of arms and run folders, derived from the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ddoq.config.form import check_form
from ddoq.config.secrets import register_env_resolver
from ddoq.pipeline.keys import digest, settled
from ddoq.utils.paths import expand_path, expand_paths

_LONGEST = 120  # bytes of a readable name; file systems take 255 of a whole one

#: Parts of the configuration that cannot change a result.
NOT_IDENTITY = ("paths", "run", "sweep", "trainer", "logger", "hydra")

#: Quantizers whose points are real latents.
SELECTIONS = ("random", "nearest", "herding", "kcenter", "kmedoids")


def arm_name(arm: Mapping[str, Any]) -> str:
    """Return the name of an arm: k-means with weights is ``ddoq``, without weights ``ddoq_uniform``.

    Any other quantizer gives its own name, with ``_weighted`` behind it where its masses are used. Selections of
    real images (``random``, ``nearest``, ...) name the generator if it does not show the images as they are. Another
    space than that of the latents, and a budget shared by error, are named, too.

    Args:
        arm: ``quantizer``, ``weighting`` and ``generator``, ``space`` and ``allocation`` where they are not the
            default.
    """
    quantizer, weighting, generator = (arm[part]["name"] for part in ("quantizer", "weighting", "generator"))
    name = "ddoq" if quantizer == "kmeans" else quantizer
    if quantizer in SELECTIONS and generator != "real":
        name += f"_{generator}"
    if arm.get("space", {}).get("name", "latents") != "latents":
        name += f"_{arm['space']['name']}"
    if arm.get("allocation", "equal") != "equal":
        name += f"_by_{arm['allocation']}"
    if quantizer == "kmeans":
        return f"{name}_uniform" if weighting == "uniform" else name
    return name if weighting == "uniform" else f"{name}_weighted"


def run_name(config: Mapping[str, Any]) -> str:
    """Return the name of a run's folder: readable first, and unique by the identity of its configuration."""
    identity = {name: part for name, part in config.items() if name not in NOT_IDENTITY}
    readable = f"{config['dataset']['name']}-{arm_name(config)}"
    return f"{file_name(readable)}-ipc{config['ipc']}-s{config['seed']}-{digest(settled(identity))[:8]}"


def file_name(text: str) -> str:
    """Return a text as the name of a file: Hydra makes a run's folder before anybody has looked at the names."""
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
        check_form(plain, without=NOT_IDENTITY)  # Hydra asks for the name before anything else looks
        return run_name(expand_paths(plain))

    def outputs(*, _root_: DictConfig) -> str:
        """Return ``paths.outputs``, or raise ConfigError where it is no folder's."""
        return expand_path(_root_.paths.outputs, "paths.outputs")

    OmegaConf.register_new_resolver("run_name", resolve, replace=True)
    OmegaConf.register_new_resolver("outputs", outputs, replace=True)
    OmegaConf.register_new_resolver("file_name", file_name, replace=True)
    register_env_resolver()
