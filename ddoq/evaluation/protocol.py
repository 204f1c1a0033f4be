"""How a student is trained: frozen, named, and the same for every arm of a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import nn

from ddoq.evaluation.augment import Augmentation
from ddoq.evaluation.weights import WeightUse
from ddoq.options import (
    Fraction,
    Labels,
    NotNegativeFloat,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Values of a protocol for some sizes of data set and some students;
    ``None`` does not ask, or does not set.

    Args:
        max_ipc: holds up to so many images per class.
        min_classes, max_classes: holds from, and up to, so many classes.
        students: holds for these, by name.
        epochs, batch_size, learning_rate, weight_decay, image_size, cosine_length: what it sets.
    """

    max_ipc: PositiveInt | None = None
    min_classes: PositiveInt | None = None
    max_classes: PositiveInt | None = None
    students: Sequence[str] | None = None
    epochs: PositiveInt | None = None
    batch_size: PositiveInt | None = None
    learning_rate: PositiveFloat | None = None
    weight_decay: NotNegativeFloat | None = None
    image_size: PositiveInt | None = None
    cosine_length: PositiveFloat | None = None

    def holds(self, ipc: float, num_classes: int, student: str) -> bool:
        """Tell whether it holds for so many images per class, so many classes and this student."""
        return (
            (self.max_ipc is None or ipc <= self.max_ipc)
            and (self.min_classes is None or num_classes >= self.min_classes)
            and (self.max_classes is None or num_classes <= self.max_classes)
            and (self.students is None or student in self.students)
        )

    def values(self) -> dict[str, Any]:
        """Return what it sets."""
        names = (
            "epochs",
            "batch_size",
            "learning_rate",
            "weight_decay",
            "image_size",
            "cosine_length",
        )
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A training recipe.

    Its length is either ``epochs``, whose number may depend on the images per class, or
    ``num_steps``, which gives every arm the same number of gradient steps, the full data included.

    Args:
        source: where the recipe is from.
        epochs: passes over the data set; the last batch of each may be smaller.
        num_steps: gradient steps, through the permuted epochs without a gap.
        batch_size: images per step.
        optimizer: ``adamw``, ``adam`` or ``sgd``.
        learning_rate: at the start.
        weight_decay: decoupled for ``adamw``.
        decay: what decays: ``all`` parameters, or ``matrices`` only (no biases, no norms).
        momentum, nesterov: of ``sgd``.
        schedule: ``cosine``, ``step`` or ``constant``.
        schedule_by: the rate changes every ``step`` or every ``epoch``.
        cosine_length: the half-period of the cosine in lengths of the training:
            with 2 the rate only halves.
        milestones: of ``step``: the shares of the training after which the rate is multiplied.
        milestone_factor: of ``step``: by this.
        reset_at_milestones: the optimizer forgets its state there.
        labels: ``hard``; ``soft``: a teacher labels every view; ``stored``: the same, written to
            disk first; ``fixed``: a teacher labels every image once.
        loss: on soft labels: ``kl`` of the softmax at ``temperature``, or ``mse`` of the logits.
            Hard labels take the cross-entropy.
        temperature: of teacher and student; losses are not multiplied by its square.
        hard_share: factor of an additional cross-entropy on hard labels.
        augmentation: of every view.
        weights: how the points' weights are used.
        rules: the first that holds and sets a value decides it.
        norm: layers of convolutional students: ``instance``, ``batch`` or ``none``; ``None``: the
            student's own.
        image_size: side of the students' images in pixels; ``None`` for the data set's.
        test_crop: share of the side of test images that is kept, about the centre.
        normalization: by the mean and deviation of the ``dataset`` or of ``imagenet``.
        precision: ``float32``, or ``bfloat16`` for autocast.
        num_evaluations: accuracies along the way, at equal distances; the last one is the result.
        evaluate_from: share of the training before which there are none.
        selection: what the source reports, ``last`` or ``best``; both are always shown.
        num_seeds: students per arm.
        redraw: draw codebook and images anew for every student, so that the spread of an arm is
            that of the method and not of one draw. Needs one generation per student.
    """

    batch_size: PositiveInt
    source: str = ""
    epochs: PositiveInt | None = None
    num_steps: PositiveInt | None = None
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NotNegativeFloat = 5e-4
    decay: Literal["all", "matrices"] = "all"
    momentum: Fraction = 0.9
    nesterov: bool = False
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    schedule_by: Literal["step", "epoch"] = "step"
    cosine_length: PositiveFloat = 1.0
    milestones: Sequence[float] = ()
    milestone_factor: NotNegativeFloat = 0.1
    reset_at_milestones: bool = False
    labels: Labels = "hard"
    loss: Literal["kl", "mse"] = "kl"
    temperature: PositiveFloat = 1.0
    hard_share: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    weights: WeightUse = field(default_factory=WeightUse)
    rules: Sequence[Rule] = ()
    norm: Literal["instance", "batch", "none"] | None = None
    image_size: PositiveInt | None = None
    test_crop: PositiveShare = 1.0
    normalization: Literal["dataset", "imagenet"] = "dataset"
    precision: Literal["float32", "bfloat16"] = "float32"
    num_evaluations: PositiveInt = 10
    evaluate_from: Fraction = 0.0
    selection: Literal["last", "best"] = "last"
    num_seeds: PositiveInt = 5
    redraw: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Protocol:
        """Return the protocol of a plain configuration;
        what only tables and stages read is passed over.
        """
        values = {
            option.name: config[option.name] for option in fields(cls) if option.name in config
        }
        values["augmentation"] = Augmentation(**values.get("augmentation", {}))
        values["weights"] = WeightUse(**values.get("weights", {}))
        values["rules"] = tuple(Rule(**rule) for rule in values.get("rules", ()))
        return cls(**values)

    def resolve(self, ipc: float, num_classes: int, student: str) -> Protocol:
        """Return the protocol for one size of data set and one student, without rules.

        Args:
            ipc: images per class, the mean where classes differ.
            num_classes: of the data set.
            student: its name.
        """
        values: dict[str, Any] = {}
        for rule in self.rules:
            if rule.holds(ipc, num_classes, student):
                values = rule.values() | values
        return replace(self, rules=(), **values)

    def length(self, num_images: int) -> int:
        """Return the number of gradient steps on a data set of so many images."""
        return (
            self.num_steps
            if self.epochs is None
            else self.epochs * math.ceil(num_images / self.batch_size)
        )

    def rate(self, step: int, num_images: int) -> float:
        """Return the factor of the learning rate at a step."""
        now, end = self._clock(step, num_images)
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * now / end / self.cosine_length))
        return (
            self.milestone_factor ** self.milestones_passed(step, num_images)
            if self.schedule == "step"
            else 1.0
        )

    def milestones_passed(self, step: int, num_images: int) -> int:
        """Return how many milestones, rounded down to whole steps or epochs, are behind a step."""
        now, end = self._clock(step, num_images)
        return sum(now >= int(milestone * end) for milestone in self.milestones)

    def _clock(self, step: int, num_images: int) -> tuple[int, int]:
        """Return the time and the end of the training in the unit in which the rate changes."""
        if self.schedule_by == "epoch":
            return step // math.ceil(num_images / self.batch_size), self.epochs
        return step, self.length(num_images)

    def evaluation_steps(self, num_images: int) -> list[int]:
        """Return after how many steps the student is measured; the last is the end."""
        length, first, num = self.length(num_images), self.evaluate_from, self.num_evaluations
        return sorted(
            {max(1, round(length * (first + (1 - first) * i / num))) for i in range(1, num + 1)}
        )

    def build_optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of a student's parameters."""
        groups = self._groups(network.parameters())
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                groups, self.learning_rate, momentum=self.momentum, nesterov=self.nesterov
            )
        algorithm = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[self.optimizer]
        return algorithm(groups, self.learning_rate, fused=True)

    def _groups(self, parameters: Iterable[nn.Parameter]) -> list[dict]:
        every = list(parameters)
        matrices = [p for p in every if self.decay == "all" or p.ndim > 1]
        others = [p for p in every if self.decay != "all" and p.ndim <= 1]
        groups = [(matrices, self.weight_decay), (others, 0.0)]
        return [{"params": params, "weight_decay": decay} for params, decay in groups if params]
