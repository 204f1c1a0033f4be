"""A teacher is tried on real images before it labels anything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest
from torch import Tensor

from ddoq.errors import StageError

_FEW_CLASSES = 3  # so few that twice chance says little: 67 % or even 100 %
_BY_CHANCE = 0.05  # probability above which the accuracy may be luck
_PERMUTED = 1e-3  # probability below which a relabelling that fits other images is no luck


def examine(logits: Tensor, labels: Tensor, teacher: str, class_names: Sequence[str]) -> dict:
    """Return a teacher's accuracy on real images, ``top1`` (a fraction) and ``num_images``, if it can be used.

    Args:
        logits: ``[n, num_classes]`` in the label order of the data set.
        labels: ``[n]``.
        teacher: its name, for errors.
        class_names: of the data set, in label order.

    Raises:
        StageError: outputs are NaN or infinite or not as many as classes; or the accuracy is not above chance by an
            exact binomial test, or, with more than three classes, below twice chance.
    """
    num, num_classes = len(labels), len(class_names)
    if logits.shape != (num, num_classes):
        raise StageError(
            f"teacher: {teacher} gives outputs of shape {list(logits.shape)} for {num} images of {num_classes} classes",
            "set teacher.classes to what the outputs are (imagenet or dataset), or take another teacher",
        )
    broken = int((~logits.isfinite()).any(1).sum())
    if broken:
        raise StageError(
            f"teacher: {teacher} gives NaN or infinite outputs for {broken} of {num} images",
            "replace the weights in teacher.path, or take another teacher",
        )
    labels, outputs = labels.cpu(), logits.argmax(1).cpu()
    correct, chance = int((outputs == labels).sum()), 1 / num_classes
    luck = binomtest(correct, num, chance, alternative="greater").pvalue
    if luck > _BY_CHANCE or (num_classes > _FEW_CLASSES and correct / num < 2 * chance):
        cause = f"teacher: {teacher} is right on {correct / num:.1%} of {num} real images, where chance is {chance:.1%}"
        found = _relabelled(outputs, labels, num_classes)
        if found is None:
            raise StageError(
                f"{cause}: it is near chance",
                "correct teacher.path and teacher.image_size, or take a teacher of this data set (teacher=own)",
            )
        accuracy, output, label = found
        raise StageError(
            f"{cause}, and on {accuracy:.1%} in another order of its labels: they look permuted (outputs of class "
            f"'{class_names[output]}' fit images of class '{class_names[label]}')",
            "set teacher.classes to what the outputs are, or take weights that were trained with this label order",
        )
    return {"top1": correct / num, "num_images": num}


def _relabelled(outputs: Tensor, labels: Tensor, num_classes: int) -> tuple[float, int, int] | None:
    """Return the accuracy after the best one-to-one relabelling, and the output and label of which it moves most.

    The relabelling is chosen on one half of each class and its accuracy is that on the other: with many classes and
    few images, some relabelling always fits the images it was chosen on. ``None`` where it is not far better.
    """
    chosen_on = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        chosen_on[(labels == label).nonzero()[::2, 0]] = True
    confusion, other = (_confusion(outputs[part], labels[part], num_classes) for part in (chosen_on, ~chosen_on))
    rows, columns = linear_sum_assignment(confusion, maximize=True)
    num, correct = int(other.sum()), int(other[rows, columns].sum())
    is_luck = num == 0 or binomtest(correct, num, 1 / num_classes, alternative="greater").pvalue > _PERMUTED
    moved = np.where(rows == columns, -1, (confusion + other)[rows, columns])
    if is_luck or correct < 2 * np.trace(other) or moved.max() < 1:
        return None
    most = int(moved.argmax())
    return correct / num, int(columns[most]), int(rows[most])


def _confusion(outputs: Tensor, labels: Tensor, num_classes: int) -> np.ndarray:
    """Return how often images of each class (row) get each output (column)."""
    return (labels * num_classes + outputs).bincount(minlength=num_classes**2).view(num_classes, num_classes).numpy()
