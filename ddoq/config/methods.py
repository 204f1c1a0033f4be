"""Schemas of the methods that make images themselves. See ``ddoq.config.components``."""

from __future__ import annotations

from dataclasses import dataclass

from ddoq.config.components import Component


@dataclass
class DMConf(Component):
    """A stand-in until the method is there."""

    _target_: str = "ddoq.distillers.DM"
    num_steps: int = 1000
    learning_rate: float = 1.0
