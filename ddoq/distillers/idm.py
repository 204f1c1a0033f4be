"""Improved distribution matching: networks on their way, and what they make of the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddoq.distillers.apprentice import BATCH, Apprentice
from ddoq.distillers.base import Update, drawn
from ddoq.distillers.dm import DM
from ddoq.distillers.features import class_features
from ddoq.distillers.synthetic import labels_of
from ddoq.distillers.task import Batch, Task
from ddoq.labelers.teacher import last_linear
from ddoq.options import Decided, NotNegativeFloat, NotNegativeInt, PositiveInt, Unused
from ddoq.utils.seeding import item_generator


@dataclass(kw_only=True)
class IDM(DM):
    """DM in networks that real images train, with the cross-entropy of the images in them.

    Zhao et al. 2023. A queue of networks grows by a fresh one now and then; each step takes one
    of them, in eval mode, and then trains others. The cross-entropy of each class is multiplied
    by ``cross_entropy`` and by the network's accuracy in percent, as in the authors' code: a
    network that knows nothing has no say.

    Args:
        cross_entropy: factor of the cross-entropy.
        first_networks: in the queue at the beginning.
        most_networks: in the queue; then the oldest leaves.
        every: steps from one fresh network to the next.
        num_trained: networks that are trained after each step.
        adaptive: 0: cross-entropy is no match of means.
        train_steps: of each of them, on batches of 256 real images without augmentation.
    """

    cross_entropy: Decided[NotNegativeFloat]
    every: Decided[PositiveInt]
    train_steps: Decided[PositiveInt]
    first_networks: PositiveInt = 3
    most_networks: PositiveInt = 100
    num_trained: NotNegativeInt = 2
    adaptive: Annotated[float, Unused("cross-entropy is no match of means", "dm, dc or dsa")] = 0.0

    def networks(self, task: Task) -> nn.ModuleList:
        """Return the queue, those included that join it later."""
        numbers = range(self._num_joined(self.num_steps - 1, self.most_networks))
        return nn.ModuleList(Apprentice(task.network(number)) for number in numbers)

    def network(self, task: Task, step: int) -> nn.Module:
        """Return the network that a step takes, in eval mode."""
        return task.networks[self._chosen(task, step, "matched", 1)[0]].network.eval()

    def step(self, task: Task, batch: Batch, update: Update) -> None:
        """Match the mean features of each class and lower its cross-entropy; train networks."""
        self._renew(task, batch.step)
        (place,) = self._chosen(task, batch.step, "matched", 1)
        (network, real), percent = self._real(task, batch), task.networks[place].percent_right
        weight = self.cross_entropy * percent

        def loss() -> Tensor:
            fake = class_features(network, task.fake(batch))
            logits = last_linear(network, "student")[1](fake.flatten(0, 1))
            entropy = cross_entropy(logits, labels_of(fake)) * len(fake)
            return self.discrepancy(real, fake, batch.weights) + weight * entropy

        update(loss)
        for place in self._chosen(task, batch.step, "trained", self.num_trained):
            self._train(task, place, batch.step)

    def _num_joined(self, step: int, most: int) -> int:
        """Return how many networks have joined by a step, at most ``most``."""
        return min(most, self.first_networks + step // self.every)

    def _renew(self, task: Task, step: int) -> None:
        """Let a fresh network take the place of the oldest, where the queue is full."""
        number = self.first_networks + step // self.every - 1
        if step and step % self.every == 0 and number >= self.most_networks:
            task.networks[number % self.most_networks].restart(task.network(number))

    def _chosen(self, task: Task, step: int, what: str, num: int) -> list[int]:
        """Return the places of networks that are drawn from the queue."""
        joined = self._num_joined(step, len(task.networks))
        generator = item_generator(task.seed, what, step)
        return torch.randperm(joined, generator=generator)[:num].tolist()

    def _train(self, task: Task, place: int, step: int) -> None:
        generator = item_generator(task.seed, "learn", step, place)
        rows = drawn(torch.cat(task.positions), self.train_steps * BATCH, generator).to(
            task.images.device
        )
        for some in rows.split(BATCH):
            task.networks[place].learn(task.normalized(some), task.labels[some])
