"""Whether answers are in the order of the labels:
the given order against the best one-to-one relabelling.

Which relabelling is best is decided on one half of each class's images and judged on the other:
with many classes and few images, some relabelling always fits the images that it was chosen on. It
is a product of cycles (two swapped classes are one of two), and each is judged by its own classes
alone, with equally many images of each: two swapped classes would drown among a thousand. The test
is paired and exact (McNemar 1947): of the images where exactly one of the two orders is right,
half should be the other's. The error rate is shared out among the cycles by what they gained on
the first half, so that noise in other classes costs little power (weighted Bonferroni: Genovese,
Roeder & Wasserman 2006).

What it finds: of two swapped classes with ``n`` judged images each, a teacher that is otherwise
right on a share ``a`` calls ``2 a n`` by the other's name; ten of these that stand alone are
evidence enough. With ten judged images per class that is ``a`` = 0.7 for nine pairs in ten, with 25
``a`` = 0.4, with 80 ``a`` = 0.2; with five, only ``a`` = 1. A full shuffle of 100 classes is found
from ``a`` = 0.2 on with ten. Classes between which a teacher cannot tell are not swapped, nor those
of one that takes cats for dogs but knows dogs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest

#: Probability that an order which is no worse than any other is found to be wrong.
FALSE_ALARM = 1e-3
#: A class moves if it gains at least this share of what a class is right on
#: in the best relabelling.
_CLEAR = 0.25


@dataclass(frozen=True, kw_only=True)
class OrderTrial:
    """What images say about an order of answers.

    Attributes:
        given: accuracy in the given order on the judged half;
            the mean of the classes, like the next.
        relabelled: accuracy after the relabelling that is best on the other half.
        p_value: of the given order being no worse than that, corrected for the number of cycles.
        images_per_class: the fewest that a class has, both halves together.
        outputs: the output that fits each label: the label itself but where the order is wrong.
    """

    given: float
    relabelled: float
    p_value: float
    images_per_class: int
    outputs: tuple[int, ...]

    @property
    def moved(self) -> list[int]:
        """The labels whose order is significantly wrong."""
        return [label for label, output in enumerate(self.outputs) if label != output]

    def to_facts(self) -> dict[str, float]:
        """Return what is written down about it."""
        return {
            "given": self.given,
            "relabelled": self.relabelled,
            "p_value": self.p_value,
            "images_per_class": self.images_per_class,
        }


def compare_orders(answers: np.ndarray, labels: np.ndarray, num_classes: int) -> OrderTrial:
    """Compare the order in which answers are given with the best other one.

    Args:
        answers: ``[n]``, what a teacher, a file of labels or anything else that is believed to use
            the numbers of the labels says about each image, in ``[0, num_classes)``.
        labels: ``[n]``, what the images are.
        num_classes: of both.
    """
    images = _Answers(answers, labels, num_classes)
    choosing, judging = images.part(~images.judges), images.part(images.judges)
    outputs, own = _best(choosing.rates), np.arange(num_classes)
    cycles, p_value, wrong = list(_cycles(outputs)), 1.0, []
    for cycle, share in zip(cycles, _shares(choosing, outputs, cycles), strict=True):
        corrected = min(1.0, _p_value(*judging.decided(outputs, cycle)) / share)
        p_value = min(p_value, corrected)
        wrong += cycle if corrected <= FALSE_ALARM else []
    there = judging.counts > 0
    return OrderTrial(
        given=float(judging.rates[own, own][there].mean()) if there.any() else 0.0,
        relabelled=float(judging.rates[own, outputs][there].mean()) if there.any() else 0.0,
        p_value=p_value,
        images_per_class=int(images.counts.min()),
        outputs=_repaired(images.rates, sorted(wrong)),
    )


def doubtful_classes(answers: np.ndarray, labels: np.ndarray, num_classes: int) -> list[int]:
    """Return the labels that the best relabelling moves:
    of their classes, more images are worth a look.

    Only the half that chooses is asked, so that judging stays fair
    when further images are appended.
    """
    images = _Answers(answers, labels, num_classes)
    outputs = _best(images.part(~images.judges).rates)
    return np.flatnonzero(outputs != np.arange(num_classes)).tolist()


@dataclass(frozen=True)
class _Answers:
    """Answers ``[n]`` about images with labels ``[n]``."""

    answers: np.ndarray
    labels: np.ndarray
    num_classes: int

    def part(self, chosen: np.ndarray) -> _Answers:
        return _Answers(self.answers[chosen], self.labels[chosen], self.num_classes)

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of images of each class."""
        return np.bincount(self.labels, minlength=self.num_classes)

    @cached_property
    def numbers(self) -> np.ndarray:
        """Number of each image within its class."""
        numbers = np.empty(len(self.labels), int)
        first = np.repeat(self.counts.cumsum() - self.counts, self.counts)
        numbers[np.argsort(self.labels, kind="stable")] = np.arange(len(self.labels)) - first
        return numbers

    @property
    def judges(self) -> np.ndarray:
        """Which images judge: every other one of each class."""
        return self.numbers % 2 == 1

    @cached_property
    def rates(self) -> np.ndarray:
        """Share of the images of each class (row) that gets each answer (column)."""
        pairs = self.labels.astype(np.int64) * self.num_classes + self.answers
        counts = np.bincount(pairs, minlength=self.num_classes**2).reshape(self.num_classes, -1)
        return counts / np.maximum(self.counts, 1)[:, None]

    def decided(self, outputs: np.ndarray, cycle: list[int]) -> tuple[int, int]:
        """Return how many images only the relabelling has right, and how many only the given order.

        Of each class in the cycle equally many images count, else a class with many would take its
        answer from one with few. Those of a class without any count for the given order.
        """
        counts = self.counts[cycle]
        if not counts.any():
            return 0, 0
        num = counts[counts > 0].min()
        counting = self.part(np.isin(self.labels, cycle) & (self.numbers < num))
        relabelled = (counting.answers == outputs[counting.labels]).sum()
        given = (counting.answers == counting.labels).sum() + num * (counts == 0).sum()
        return int(relabelled), int(given)


def _best(rates: np.ndarray) -> np.ndarray:
    """Return the answer to each label in the best relabelling;
    a class moves only for a clear gain.
    """
    rows, best = linear_sum_assignment(rates, maximize=True)
    clear = _CLEAR * rates[rows, best].mean() + 1e-9
    return linear_sum_assignment(rates + clear * np.eye(len(rates)), maximize=True)[1]


def _cycles(outputs: np.ndarray) -> Iterator[list[int]]:
    """Yield the labels of each cycle of a permutation, fixed points left out."""
    seen: set[int] = set()
    for start in np.flatnonzero(outputs != np.arange(len(outputs))).tolist():
        cycle, label = [], start
        while label not in seen:
            seen.add(label)
            cycle.append(label)
            label = int(outputs[label])
        if cycle:
            yield cycle


def _shares(choosing: _Answers, outputs: np.ndarray, cycles: list[list[int]]) -> list[float]:
    """Return the share of the error rate that each cycle may spend:
    half of it evenly, half by evidence.
    """
    decided = np.array([choosing.decided(outputs, cycle) for cycle in cycles]).reshape(-1, 2)
    gains = decided[:, 0] - decided[:, 1]
    shares = np.exp2(gains - gains.max(initial=0))
    return ((shares / shares.sum() + 1 / len(cycles)) / 2).tolist() if cycles else []


def _p_value(relabelled: int, given: int) -> float:
    """Return the probability of so many images for the relabelling if either order were as good."""
    num = relabelled + given
    return float(binomtest(relabelled, num, alternative="greater").pvalue) if num else 1.0


def _repaired(rates: np.ndarray, wrong: list[int]) -> tuple[int, ...]:
    """Return the answer to each label where some are in a wrong order, by all images of these."""
    outputs = np.arange(len(rates))
    if wrong:
        best = linear_sum_assignment(rates[np.ix_(wrong, wrong)], maximize=True)[1]
        outputs[wrong] = np.array(wrong)[best]
    return tuple(outputs.tolist())
