"""Hydra's and OmegaConf's errors, in two lines with the nearest valid choice."""

from __future__ import annotations

import logging
import re
import traceback
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ddoq.config.choices import groups
from ddoq.config.constructors import constructor
from ddoq.config.form import ROOT, kind
from ddoq.config.keys import choices_with, known_keys
from ddoq.config.overrides import hints, several_values
from ddoq.errors import ConfigError, DdoqError, did_you_mean
from ddoq.utils.disk import disk_error

#: What Hydra's own groups get from extras of ours: the extra, by the choice.
_PLUGINS = {
    "hydra/launcher": {"submitit_slurm": "slurm", "submitit_local": "slurm", "joblib": "slurm"},
    "hydra/sweeper": {"optuna": "search"},
}


def explain(error: Exception) -> DdoqError:
    """Return the DdoqError that says what an exception means to a user;
    log the traceback where there is a run.log.
    """
    if any(isinstance(handler, logging.FileHandler) for handler in logging.getLogger().handlers):
        logging.getLogger("ddoq").error("", exc_info=error)
    if own_error := _said_by_ddoq(error):
        return own_error
    if isinstance(error, HydraException | OmegaConfBaseException) or _is_of_omegaconf(error):
        text = "\n".join(str(e) for e in (error, error.__cause__) if e is not None)
        return _explain_config(text)
    if readable := disk_error(error, None):
        return readable
    first = str(error).splitlines()[0] if str(error) else ""
    return DdoqError(
        f"unexpected {type(error).__name__}: {first}",
        "this is a bug in ddoq or below it: HYDRA_FULL_ERROR=1 shows the traceback; "
        "run.log has it too",
    )


def _is_of_omegaconf(error: Exception) -> bool:
    """Tell whether OmegaConf stumbled: over a key below a value that has none,
    it raises whatever comes of it.
    """
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
    return did_you_mean(key, [*known_keys(), *groups()])


def _no_such_key(key: str, otherwise: str) -> ConfigError:
    if key in constructor(ROOT).options:
        return ConfigError(f"{key}: no value", f"{key} is needed: do not delete it")
    if owners := choices_with(key):
        return ConfigError(
            f"{key}: the chosen {key.split('.')[0]} has no such key",
            f"it belongs to {' or '.join(owners)}: choose that, or {otherwise}",
        )
    return ConfigError(f"{key}: there is no such key", _nearest(key))


def _other_value(key: str, message: str = "") -> str:
    """Return the remedy for a value of the wrong kind."""
    if whole := re.match(r"Value '(\d+)\.0' .*Integer", message):
        return f"set {key}={whole.group(1)}"
    kinds = dict.fromkeys(kind(hint) for hint in hints(key))
    return f"set {key} to {' or '.join(kinds) or 'a value of that type'}"


def _explain_config(text: str) -> ConfigError:
    """Return what Hydra or OmegaConf says of a configuration."""
    return _explain_choice(text) or _explain_value(text)


def _explain_choice(text: str) -> ConfigError | None:
    """Return what is wrong with a group, its choice or the list of defaults, if it is that."""
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text) or re.search(
        r"In '.*?': Could not load '(.+)/(.+?)'", text
    ):
        group, choice = match.groups()
        if group in _PLUGINS and choice in _PLUGINS[group]:
            return _not_installed(group, choice)
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        return ConfigError(
            f"{group}: there is no '{choice}'", did_you_mean(choice, options or ["(none)"])
        )
    if match := re.search(r"config group '(.+)' does not exist", text):
        group = match.group(1)
        return ConfigError(f"{group}: there is no such group", did_you_mean(group, groups()))
    if match := re.search(r"Multiple values for (\S+)\. .*: (\S+)'", text):
        key, choice = match.groups()
        remedy = f"write {key}={choice}, without a plus (in a file, override /{key}: {choice})"
        return ConfigError(f"{key}: it is part of the defaults already", remedy)
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match.group(1)
        if "@" in key and (added := re.search(r"To append to your default list use (\S+)", text)):
            remedy = f"write {added.group(1)}, with a plus"
            return ConfigError(f"{key}: not part of the defaults", remedy)
        if key.lstrip("+") in ("experiment", "study"):
            name = key.lstrip("+")
            return ConfigError(
                f"{name}: not part of the defaults", f"write +{name}=<name>, with a plus"
            )
        return _no_such_key(key, "leave the key out (with a plus it joins a file that lacks it)")
    return None


def _not_installed(group: str, choice: str) -> ConfigError:
    extra = _PLUGINS[group][choice]
    return ConfigError(
        f"{group}: {choice} belongs to the extra '{extra}', which is not installed",
        f"pip install 'ddoq[{extra}]'; in a checkout: pip install -e '.[{extra}]'",
    )


def _explain_value(text: str) -> ConfigError:
    """Return what is wrong with a key or its value."""
    if match := re.search(r"Key '([^']+)' (?:is )?not in (?:struct|'\w+')\s+full_key: (\S+)", text):
        return _no_such_key(match.group(2), "use another experiment: its file sets the key")
    if match := re.search(
        r"(Value '.*?' .*?could not be converted to \w+|Invalid value.*?)\s+full_key: (\S+)",
        text,
        re.DOTALL,
    ):
        return ConfigError(
            f"{match.group(2)}: {match.group(1)}", _other_value(match.group(2), match.group(1))
        )
    if match := re.search(r"field '[\w.]+' is not Optional\s+full_key: (\S+)", text):
        return ConfigError(f"{match.group(1)}: null is no value", _other_value(match.group(1)))
    if match := re.search(r"Environment variable '(.+?)' not found\"?\s+full_key: (\S+)", text):
        name, key = match.groups()
        return ConfigError(
            f"{key}: the environment variable {name} is not set",
            f"export {name}=..., or set {key}=...",
        )
    if match := re.search(
        r"Missing mandatory value: (\S+)"
        r"|Structured config of type .*? has missing mandatory value: (\S+)",
        text,
    ):
        key = match.group(1) or match.group(2)
        return ConfigError(f"{key}: no value", f"set {key}=...")
    if match := re.search(r"Ambiguous value for argument '(\w[^']*)'", text):
        return several_values(match.group(1))
    if match := re.search(r"does not support deletion\s+full_key: (\S+)", text):
        return ConfigError(
            f"{match.group(1)}: it cannot be deleted",
            f"{match.group(1)} is needed: do not delete it",
        )
    if match := re.search(r"([^\n]+)\n\s+full_key: (\S+)", text):
        return ConfigError(
            f"{match.group(2)}: {match.group(1).strip()}",
            "`ddoq --cfg job` shows what the key takes",
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ConfigError("config: " + "; ".join(lines[:3]), "see `ddoq --help` and `ddoq --cfg job`")
