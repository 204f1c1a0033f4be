"""From the configuration of a component to the component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def build(config: Mapping[str, Any], **runtime: Any) -> Any:
    """Instantiate a component from its configuration and from objects
    that only exist at run time.
    """
    from hydra.utils import instantiate  # 0.1 s, which a plan need not wait for twice

    plain = {key: value for key, value in config.items() if key != "name"}
    # Called apart from Hydra, which would take a dataclass among the objects
    # for a configuration, and wrap errors.
    return instantiate(plain, _convert_="all", _partial_=True)(**runtime)
