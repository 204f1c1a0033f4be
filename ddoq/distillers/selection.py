"""Which training images a method begins with, leaves out, or draws more often."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from ddoq.distillers.apprentice import Apprentice
from ddoq.distillers.synthetic import labels_of
from ddoq.distillers.task import Task
from ddoq.quantizers import Herding, KMeans

_STEPS = 50  # of a network that the synthetic images train


def early_losses(task: Task, num_epochs: int) -> Tensor:
    """Return the mean cross-entropy of each training image over a network's first epochs, ``[N]``.

    Deng et al. 2024 (BiLP), static level: what is learned late, or never, has a large one.
    """
    apprentice = Apprentice(task.network("early"))
    images, total = task.normalized(torch.arange(len(task.images))), 0
    for epoch in range(num_epochs):
        apprentice.study(images, task.labels, task.seed, "early", epoch)
        total = total + apprentice.losses(images, task.labels)
    return total / num_epochs


def losses_after(task: Task, step: int) -> Tensor:
    """Return the cross-entropy of each training image in a network that the synthetic images, as
    they are at a step, have trained; ``[N]``.
    """
    apprentice = Apprentice(task.network("importance", step))
    images = task.synthetic().detach()
    for epoch in range(_STEPS):
        apprentice.study(
            images.flatten(0, 1), labels_of(images), task.seed, "importance", step, epoch
        )
    return apprentice.losses(task.normalized(torch.arange(len(task.images))), task.labels)


def lowest(rows: Tensor, losses: Tensor, share: float) -> Tensor:
    """Return the share of rows ``[n]`` with the lowest losses ``[N]``, at least 1, in order."""
    num = max(1, round(share * len(rows)))
    return rows[losses.cpu()[rows].argsort(stable=True)[:num].sort().values]


def mixed(losses: Tensor, share: float) -> Tensor:
    """Return probabilities ``[n]``: a share by losses ``[n]``, the rest even."""
    by_loss = (losses + 1e-12) / (losses + 1e-12).sum()
    return share * by_loss + (1 - share) / len(losses)


def _herding(images: Tensor, num: int, generator: Generator) -> Tensor:
    return Herding(num).fit(images, generator).nearest


def _by_sensitivity(images: Tensor, num: int, generator: Generator) -> Tensor:
    """Draw by ``d²(x, C) / sum d² + 1 / |cell of x|``, C being centroids of k-means."""
    centroids = KMeans(num, num_restarts=1).fit(images, generator).centroids
    squares, cells = torch.cdist(images, centroids.float()).square().min(1)
    chances = squares / squares.sum().clamp(min=1e-12) + 1 / cells.bincount(minlength=num)[cells]
    return chances.multinomial(num, generator=generator)


#: Numbers of images that a class begins with, given its pixels ``[n, d]``, how many, a generator.
STARTS: dict[str, Callable[[Tensor, int, Generator], Tensor]] = {
    "herding": _herding,
    "sensitivity": _by_sensitivity,
}
