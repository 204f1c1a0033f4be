"""What later stages know of the data: the facts of ``index`` as an object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddoq.data.label_space import LabelSpace


@dataclass(frozen=True, kw_only=True)
class IndexFacts:
    """The data of a run, once they have been indexed.

    Attributes:
        space: the classes, in label order.
        counts: usable images of every class, by split: ``train``, ``validation``, ``test``.
        mean, std: of the training pixels in units of [0, 1], one per channel.
    """

    space: LabelSpace
    counts: Mapping[str, Sequence[int]]
    mean: Sequence[float]
    std: Sequence[float]

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> IndexFacts:
        """Read the facts of an ``index`` artefact."""
        return cls(
            space=LabelSpace.from_facts(facts),
            counts=facts["counts"],
            mean=facts["mean"],
            std=facts["std"],
        )

    @property
    def class_names(self) -> list[str]:
        """In label order."""
        return self.space.names

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.space.names)

    @property
    def num_channels(self) -> int:
        """1 for grey images, 3 for RGB."""
        return len(self.mean)
