"""What one part hands to the next: finite, of the right shape, as many as there have to be,
in the same order.

Every way from a network, a solver or a file to an artefact comes through here, so that a wrong
number stops the run where it arises and not as a black picture at its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddoq.errors import DdoqError, StageError

_TOLERANCE = 1e-5  # of a sum of masses, relative


@dataclass(frozen=True)
class Handover:
    """What is handed over, and what to do where it is not what was promised.

    Attributes:
        stage: that hands over.
        items: what they are, in the plural.
        remedy: second line of the error.
        error: its kind.
    """

    stage: str
    items: str
    remedy: str
    error: type[DdoqError] = StageError

    def finite(self, values: Tensor) -> Tensor:
        """Return values ``[n, ...]`` as they are; raise where one of them is NaN or infinite."""
        # One pass without a mask: a sum is finite only if all its terms are, and if not,
        # it may have overflowed.
        wide = torch.float32 if values.is_floating_point() and values.itemsize < 4 else None
        if values.sum(dtype=wide).isfinite():
            return values
        broken = ~values.flatten(1).isfinite().all(1) if values.ndim > 1 else ~values.isfinite()
        if broken.any():
            self._refuse(f"{int(broken.sum())} of {len(broken)} {self.items} are NaN or infinite")
        return values

    def shape(self, shape: Sequence[int], wanted: Sequence[int]) -> None:
        """Raise where values are of another shape than ``wanted``."""
        if tuple(shape) != tuple(wanted):
            self._refuse(f"{self.items} of shape {list(shape)} where it has to be {list(wanted)}")

    def count(self, num: int, wanted: int) -> None:
        """Raise where there are not as many as there have to be."""
        if num != wanted:
            self._refuse(f"{num} {self.items} where there have to be {wanted}")

    def order(self, labels: np.ndarray | Tensor, wanted: np.ndarray | Tensor) -> None:
        """Raise where labels ``[n]`` are not the same, one by one,
        as those that items must have.
        """
        labels, wanted = np.asarray(labels), np.asarray(wanted)
        self.count(len(labels), len(wanted))
        moved = np.flatnonzero(labels != wanted)
        if len(moved):
            self._refuse(
                f"{len(moved)} of {len(labels)} {self.items} are of another class "
                f"than they are said to be, the first at {moved[0]}"
            )

    def masses(self, values: Tensor) -> None:
        """Raise where values ``[n]`` are not finite, not negative and of sum 1."""
        self.finite(values)
        if (values < 0).any() or abs(values.sum().item() - 1) > _TOLERANCE:
            self._refuse(f"{self.items} are no masses (their sum is {values.sum().item():.6g})")

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Raise where a number in a stage's facts, at any depth, is NaN or infinite."""
        name = _broken(facts, "")
        if name:
            self._refuse(f"{self.items} hold a number that is NaN or infinite: {name}")

    def _refuse(self, cause: str) -> None:
        raise self.error(f"{self.stage}: {cause}", self.remedy)


class Batches:
    """What a network makes of batches: one finite item for each of theirs, all of one shape.

    Args:
        handover: see ``Handover``.
        shape: of an item; ``None``: that of the first one.
    """

    def __init__(self, handover: Handover, shape: Sequence[int] | None = None):
        self.handover, self._shape = handover, shape

    def check(self, outputs: Tensor, batch: Any) -> Tensor:
        """Return the outputs of a batch as they are, if they are what was promised."""
        first = next(iter(batch.values())) if isinstance(batch, Mapping) else batch[0]
        self._shape = outputs.shape[1:] if self._shape is None else self._shape
        self.handover.shape(outputs.shape, (len(first), *self._shape))
        return self.handover.finite(outputs)


def _broken(value: Any, name: str) -> str | None:
    """Return the dotted name of the first number that is not finite."""
    if isinstance(value, float):
        return None if isfinite(value) else f"{name} = {value}"
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        return None
    named = (_broken(part, f"{name}.{key}".removeprefix(".")) for key, part in parts)
    return next((broken for broken in named if broken), None)
