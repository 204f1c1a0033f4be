"""Hydra's and OmegaConf's errors, in two lines with the nearest valid choice."""

from __future__ import annotations

import logging
import re
import traceback
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ddoq.config.checks import choices_with, known_keys
from ddoq.config.schema import COMPONENTS
from ddoq.errors import ConfigError, DdoqError, did_you_mean
from ddoq.pipeline.store import disk_error

_GROUPS = [*COMPONENTS, "baselines", "ablation", "logger", "launcher", "search", "experiment"]


def explain(error: Exception) -> DdoqError:
    """Return the DdoqError that says what an exception means to a user; log the traceback where there is a run.log."""
    if any(isinstance(handler, logging.FileHandler) for handler in logging.getLogger().handlers):
        logging.getLogger("ddoq").error("", exc_info=error)
    if said := _said_by_ddoq(error):
        return said
    if isinstance(error, HydraException | OmegaConfBaseException) or _is_of_omegaconf(error):
        text = "\n".join(str(e) for e in (error, error.__cause__) if e is not None)
        return _explain_config(text)
    if readable := disk_error(error, "paths.outputs"):
        return readable
    first = str(error).splitlines()[0] if str(error) else ""
    return DdoqError(
        f"unexpected {type(error).__name__}: {first}",
        "this is a bug in ddoq or below it: HYDRA_FULL_ERROR=1 shows the traceback; run.log has it too",
    )


def _is_of_omegaconf(error: Exception) -> bool:
    """Tell whether OmegaConf stumbled: over a key below a value that has none, it raises whatever comes of it."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).parent.name == "omegaconf"


def _said_by_ddoq(error: BaseException | None) -> DdoqError | None:
    """Return the DdoqError that a library has wrapped into its own."""
    while error is not None and not isinstance(error, DdoqError):
        error = error.__cause__ or error.__context__
    return error


def _nearest(key: str) -> str:
    if key.startswith("hydra."):
        return "`ddoq launcher=... --cfg hydra` prints the keys of Hydra and its launcher"
    return did_you_mean(key, [*known_keys(), *_GROUPS])


def _no_such_key(key: str, otherwise: str) -> ConfigError:
    if owners := choices_with(key):
        return ConfigError(
            f"{key}: the chosen {key.split('.')[0]} has no such key",
            f"it belongs to {' or '.join(owners)}: choose that, or {otherwise}",
        )
    return ConfigError(f"{key}: there is no such key", _nearest(key))


def _explain_config(text: str) -> ConfigError:
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text) or re.search(
        r"In '.*?': Could not load '(.+)/(.+?)'", text
    ):
        group, choice = match.groups()
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        return ConfigError(f"{group}: there is no '{choice}'", did_you_mean(choice, options or ["(none)"]))
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match.group(1)
        if key.lstrip("+") in ("experiment", "study"):
            name = key.lstrip("+")
            return ConfigError(f"{name}: not part of the defaults", f"write +{name}=<name>, with a plus")
        return _no_such_key(key, "leave the key out")
    if match := re.search(r"Key '([^']+)' (?:is )?not in (?:struct|'\w+')\s+full_key: (\S+)", text):
        return _no_such_key(match.group(2), "use another experiment: its file sets the key")
    if match := re.search(
        r"(Value '.*?' .*?could not be converted to \w+|Invalid value.*?)\s+full_key: (\S+)", text, re.DOTALL
    ):
        return ConfigError(f"{match.group(2)}: {match.group(1)}", "give a value of that type")
    if match := re.search(
        r"Missing mandatory value: (\S+)|Structured config of type .*? has missing mandatory value: (\S+)", text
    ):
        key = match.group(1) or match.group(2)
        return ConfigError(f"{key}: no value", f"set {key}=...")
    if match := re.search(r"Ambiguous value for argument '(\w[^']*)'", text):
        return ConfigError(f"{match.group(1)}: several values", "add -m to run one after the other")
    if match := re.search(r"([^\n]+)\n\s+full_key: (\S+)", text):
        return ConfigError(f"{match.group(2)}: {match.group(1).strip()}", "`ddoq --cfg job` shows what the key takes")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ConfigError("config: " + "; ".join(lines[:3]), "see `ddoq --help` and `ddoq --cfg job`")
