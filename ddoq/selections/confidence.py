"""What the teacher is sure of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Generator, Tensor, where

from ddoq.options import PositiveInt
from ddoq.selections.base import ByClass, Outputs

_FEW = 10  # images per class: CaO₂ keeps the most confident of 10, the least confident of 50


@dataclass(kw_only=True)
class Confidence(ByClass):
    """The filter of CaO₂ (ICCV 2025): candidates that the teacher classifies correctly, those of
    which it is the most or the least confident.

    Where there are too few correct ones, the wrong ones with the highest probability of their
    class follow. Any candidates of a class may be kept, so that masses are counted anew.

    Args:
        num_draws: candidates of each point: the same point with further noise.
        order: ``most`` or ``least`` confident first; ``auto``: most for up to 10 images per class,
            least for more, as in the source, which tells of 10 and 50.
    """

    num_draws: PositiveInt = 4
    order: Literal["auto", "most", "least"] = "auto"

    def _kept(
        self, mine: Outputs, real: Outputs, label: int, num: int, generator: Generator
    ) -> Tensor:
        most = num <= _FEW if self.order == "auto" else self.order == "most"
        chance = mine.logits.double().softmax(1)[:, label]
        correct = mine.logits.argmax(1) == label
        rank = where(correct, 2 + (chance if most else -chance), chance)
        return rank.argsort(descending=True, stable=True)[:num]
