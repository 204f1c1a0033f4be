"""What the labels of a data set mean: names, WordNet ids and the classes of ImageNet-1K."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ddoq.errors import ConfigError

_WNID = re.compile(r"n\d{8}")
_MOST_NAMED = 5


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a data set; every list is in label order.

    Attributes:
        names: short readable names, all different: "tench".
        synonyms: all names of the class in one line: "tench, Tinca tinca".
        wnids: WordNet ids such as "n01440764"; ``None`` for classes without one.
        imagenet: labels among the 1,000 classes of ImageNet-1K (ILSVRC2012);
            ``None`` for classes that are not there.
    """

    names: list[str]
    synonyms: list[str]
    wnids: list[str | None]
    imagenet: list[int | None]

    @classmethod
    def from_classes(cls, class_names: Sequence[str]) -> LabelSpace:
        """Read the classes off their names; those of the form of a WordNet id are
        looked up in ``timm``.
        """
        wnids = [name if is_wnid(name) else None for name in class_names]
        if not any(wnids):
            return cls(list(class_names), list(class_names), wnids, [None] * len(wnids))
        number = {wnid: label for label, wnid in enumerate(imagenet_wnids())}
        synonyms = [
            _synonyms(name) if wnid else name for name, wnid in zip(class_names, wnids, strict=True)
        ]
        short = [
            line.split(",")[0] if wnid else line for line, wnid in zip(synonyms, wnids, strict=True)
        ]
        names = _unique(short, synonyms, class_names)
        return cls(names, synonyms, wnids, [number.get(wnid) for wnid in wnids])

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> LabelSpace:
        """Read the facts of the ``index`` stage."""
        wnids = facts["wnids"] or [None] * len(facts["class_names"])
        return cls(facts["class_names"], facts["synonyms"], wnids, facts["imagenet"])

    def to_facts(self) -> dict[str, Any]:
        """Return what ``from_facts`` reads; ``wnids`` is ``None`` where no class has one."""
        return {
            "class_names": self.names,
            "synonyms": self.synonyms,
            "wnids": self.wnids if any(self.wnids) else None,
            "imagenet": self.imagenet,
        }

    def imagenet_indices(self, component: str = "generator", fitted: str = "dit") -> list[int]:
        """Return the ImageNet-1K label of every class.

        Args:
            component: what asks, for errors.
            fitted: the choice of it that needs no such labels.

        Raises:
            ConfigError: for a class without one.
        """
        missing = [
            repr(name)
            for name, index in zip(self.names, self.imagenet, strict=True)
            if index is None
        ]
        if missing:
            named = ", ".join(missing[:_MOST_NAMED]) + (" …" if len(missing) > _MOST_NAMED else "")
            raise ConfigError(
                f"{component}: class {named} has no ImageNet-1K index"
                if len(missing) == 1
                else (
                    f"{component}: {len(missing)} of {len(self.names)} classes "
                    f"have no ImageNet-1K index: {named}"
                ),
                f"use a {component} that is fitted on the data ({component}={fitted}), "
                "or a data set of ImageNet classes",
            )
        return list(self.imagenet)

    def class_numbers(self, classes: str, num_known: int, model: str) -> list[int]:
        """Return by which number a class-conditional model knows every class.

        Args:
            classes: ``dataset``: the model was trained with these labels;
                ``imagenet``: with those of ImageNet-1K.
            num_known: classes of the model.
            model: its name, for errors.

        Raises:
            ConfigError: the model cannot know these classes.
        """
        if classes == "imagenet":
            numbers = self.imagenet_indices()
            if max(numbers) >= num_known:
                raise ConfigError(
                    f"generator.classes: class number {max(numbers)}, "
                    f"but {model} knows only {num_known} classes",
                    "give a model of ImageNet-1K, "
                    "or fit one (generator.path=null generator.classes=dataset)",
                )
            return numbers
        if num_known != len(self.names):
            raise ConfigError(
                f"generator.classes: {model} knows {num_known} classes, "
                f"the data set has {len(self.names)}",
                "set generator.classes=imagenet for a model of ImageNet-1K, "
                "or fit one (generator.path=null)",
            )
        return list(range(num_known))


def is_wnid(name: str) -> bool:
    """Return whether a name has the form of a WordNet id."""
    return bool(_WNID.fullmatch(name))


def imagenet_wnids() -> list[str]:
    """Return the WordNet ids of ImageNet-1K's 1,000 classes in label order."""
    return _info().label_names()


@cache
def _info():
    from timm.data import ImageNetInfo  # seconds: it brings all of timm

    return ImageNetInfo("imagenet-1k")


def _synonyms(wnid: str) -> str:
    try:
        # timm knows the 21,000 classes of ImageNet, not only the 1,000.
        return _info().label_name_to_description(wnid)
    except KeyError:
        return wnid


def _unique(*candidates: Sequence[str]) -> list[str]:
    """Return the first candidate of every class, or the next one where several classes share it."""
    names = list(candidates[0])
    for fallback in candidates[1:]:
        shared = {name for name, count in Counter(names).items() if count > 1}
        names = [
            other if name in shared else name for name, other in zip(names, fallback, strict=True)
        ]
    return names
