"""A teacher is tried on real images before it labels anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scipy.stats import binomtest
from torch import Tensor, cat

from ddoq.errors import StageError
from ddoq.labelers.orders import OrderTrial, compare_orders, doubtful_classes

_FEW_CLASSES = 3  # so few that twice chance says little: 67 % or even 100 %
_BY_CHANCE = 0.05  # probability above which the accuracy may be luck
_OTHER_WEIGHTS = "take weights that were trained with this label order"

#: Logits and labels of further images of some classes, as many as there are.
More = Callable[[Sequence[int]], tuple[Tensor, Tensor]]


def examine(
    logits: Tensor,
    labels: Tensor,
    teacher: str,
    class_names: Sequence[str],
    more: More | None = None,
    remedy: Callable[[OrderTrial], str] | None = None,
) -> dict:
    """Return a teacher's accuracy on real images, ``top1`` (a fraction),
    ``num_images`` and ``order``, if it is usable.

    Args:
        logits: ``[n, num_classes]`` in the label order of the data set.
        labels: ``[n]``.
        teacher: its name, for errors.
        class_names: of the data set, in label order.
        more: gives further images of the classes
            that another order of the outputs would suit better.
        remedy: says what to do about outputs in another order.

    Raises:
        StageError: outputs are NaN or infinite or not as many as classes; or they fit the
            images significantly better in another order (``ddoq.labelers.orders``); or the
            accuracy is not above chance by an exact binomial test, or, with more than three
            classes, below twice chance.
    """
    num, num_classes = len(labels), len(class_names)
    _check_outputs(logits, num, teacher, num_classes)
    labels, answers = labels.cpu(), logits.argmax(1).cpu()
    correct, chance = int((answers == labels).sum()), 1 / num_classes
    cause = f"teacher: {teacher} is right on {correct / num:.1%} of {num} real images"
    trial = _order_trial(answers, labels, teacher, num_classes, more)
    if trial.moved:
        raise StageError(
            f"{cause}, {_permuted(trial, class_names)}", remedy(trial) if remedy else _OTHER_WEIGHTS
        )
    luck = binomtest(correct, num, chance, alternative="greater").pvalue
    if luck > _BY_CHANCE or (num_classes > _FEW_CLASSES and correct / num < 2 * chance):
        raise StageError(
            f"{cause}, where chance is {chance:.1%}: it is near chance",
            "correct teacher.path and teacher.image_size, "
            "or take a teacher of this data set (teacher=own)",
        )
    return {"top1": correct / num, "num_images": num, "order": trial.to_facts()}


def _check_outputs(logits: Tensor, num: int, teacher: str, num_classes: int) -> None:
    if logits.shape != (num, num_classes):
        raise StageError(
            f"teacher: {teacher} gives outputs of shape {list(logits.shape)} "
            f"for {num} images of {num_classes} classes",
            "set teacher.classes to what the outputs are (imagenet or dataset), "
            "or take another teacher",
        )
    broken = int((~logits.isfinite()).any(1).sum())
    if broken:
        raise StageError(
            f"teacher: {teacher} gives NaN or infinite outputs for {broken} of {num} images",
            "replace the weights in teacher.path, or take another teacher",
        )


def _order_trial(
    answers: Tensor, labels: Tensor, teacher: str, num_classes: int, more: More | None
) -> OrderTrial:
    doubtful = doubtful_classes(answers.numpy(), labels.numpy(), num_classes)
    if doubtful and more is not None:
        further, further_labels = more(doubtful)
        _check_outputs(further, len(further_labels), teacher, num_classes)
        answers = cat([answers, further.argmax(1).cpu()])
        labels = cat([labels, further_labels.cpu()])
    return compare_orders(answers.numpy(), labels.numpy(), num_classes)


def _permuted(trial: OrderTrial, class_names: Sequence[str]) -> str:
    label = trial.moved[0]
    output = trial.outputs[label]
    return (
        "and in another order of its labels more often: "
        f"{len(trial.moved)} of {len(class_names)} look permuted "
        f"(outputs of class '{class_names[output]}' fit images of class '{class_names[label]}'; "
        f"of held-out images {trial.relabelled:.1%} are right so and {trial.given:.1%} as it is, "
        f"p = {trial.p_value:.1g})"
    )
