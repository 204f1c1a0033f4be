"""What is secret stays out of the configuration, which is written into every run's folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from ddoq.errors import ConfigError

_SECRET = re.compile(r"(?:^|_)(?:TOKENS?|SECRETS?|PASSWORDS?|PASSWD|PASS|KEYS?|APIKEY|CREDENTIALS?|PAT)(?:_|$)", re.I)
_PASSWORD_IN_URL = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
_KEY = re.compile(r"[+~]*[\w.@/]{1,60}(?==)")
_SHORT = 8  # characters up to which a value is not told from an ordinary word


def is_secret(name: str) -> bool:
    """Tell whether an environment variable looks like a secret by its name."""
    return _SECRET.search(name) is not None


def register_env_resolver() -> None:
    """Let ``${oc.env:NAME}`` refuse secrets."""

    def env(name: str, *default: object) -> str | None:
        if is_secret(name):
            raise ConfigError(
                f"${{oc.env:{name}}}: a secret would be written into the run's config.yaml",
                "leave it in the environment: the hub and W&B find theirs by themselves",
            )
        return oc.env(name, *default)

    OmegaConf.register_new_resolver("oc.env", env, replace=True)


def check_words(words: Iterable[str]) -> None:
    """Raise ConfigError where the command line, which is written down as well, holds a secret; it is not repeated.

    Secrets are the values of environment variables that look like one, and passwords in URLs.
    """
    secret = {name: value for name, value in os.environ.items() if is_secret(name) and len(value) > _SHORT}
    for word in words:
        key = found.group() if (found := _KEY.match(word)) else "an argument"
        for name, value in secret.items():
            if value in word:
                key = "an argument" if value in key else key
                raise ConfigError(
                    f"{key}: the value of {name} would be written into the run's folder", "leave it in the environment"
                )
        if _PASSWORD_IN_URL.search(word):
            raise ConfigError(
                f"{key}: a password in a URL would be written into the run's folder",
                "give the place without it; ddoq reads and writes folders only",
            )
