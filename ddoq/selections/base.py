"""What selections choose from, what they return, and what those that go class by class share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from ddoq.options import OfStages, PositiveInt, check_options
from ddoq.utils.seeding import item_generator


@dataclass(frozen=True)
class Outputs:
    """What networks make of some images.

    Attributes:
        features: ``[n, F]``.
        logits: of the teacher ``[n, num_classes]``, for selections that ask for them.
    """

    features: Tensor
    logits: Tensor | None = None

    def at(self, rows: Tensor) -> Outputs:
        """Return those of some images."""
        return Outputs(self.features[rows], None if self.logits is None else self.logits[rows])


#: The outputs of the training images of a class.
Real = Callable[[int], Outputs]


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Several draws of every point; row ``d * P + p`` is draw d of point p.

    Attributes:
        labels: class of each point, int64 ``[P]``.
        outputs: of all candidates, ``[num_draws * P, ...]``.
    """

    labels: Tensor
    outputs: Outputs

    @property
    def num_draws(self) -> int:
        """Number of candidates of a point."""
        return len(self.outputs.features) // len(self.labels)

    def rows(self, label: int) -> Tensor:
        """Return the rows of a class draw by draw, int64 ``[num_draws, points of the class]``."""
        points = (self.labels == label).nonzero()[:, 0]
        return torch.arange(self.num_draws)[:, None] * len(self.labels) + points


@dataclass(frozen=True)
class Choice:
    """What a selection chose.

    Attributes:
        rows: of the candidates, int64 ``[P]``, none twice: in each class as many as it has points.
        facts: what there is to say of it.
    """

    rows: Tensor
    facts: Mapping[str, Any] = field(default_factory=dict)


class Everything:
    """No selection: one draw of every point, and all of its images."""


@dataclass(kw_only=True)
class Selection(ABC):
    """From several draws of every point to as many images as there are points.

    Args:
        num_draws: candidates of each point: the same point with further noise.
    """

    num_draws: PositiveInt = 5

    def __post_init__(self) -> None:
        check_options(self, "selection")

    @abstractmethod
    def choose(self, candidates: Candidates, real: Real, seed: int) -> Choice:
        """Choose among candidates.

        Args:
            candidates: of all classes.
            real: gives the outputs of a class's training images.
            seed: of what is drawn.
        """


@dataclass(kw_only=True)
class InFeatures(Selection):
    """A selection in the features of a network.

    Args:
        space: the features, e.g. ``+space@selection.space=efficientnet_lite0``;
            ``None``: those of the run's teacher.
    """

    space: OfStages[Any] = None


class ByClass(Selection):
    """A selection that chooses in each class by itself."""

    def choose(self, candidates: Candidates, real: Real, seed: int) -> Choice:
        """See ``Selection.choose``."""
        chosen = []
        for label in candidates.labels.unique().tolist():
            rows = candidates.rows(label)
            mine = candidates.outputs.at(rows.flatten())
            generator = item_generator(seed, "select", label)
            kept = self._kept(mine, real(label), label, rows.shape[1], generator)
            chosen.append(rows.flatten()[kept])
        return Choice(torch.cat(chosen))

    @abstractmethod
    def _kept(
        self, mine: Outputs, real: Outputs, label: int, num: int, generator: Generator
    ) -> Tensor:
        """Return ``num`` rows of a class's candidates ``mine``, none twice, int64 ``[num]``."""
