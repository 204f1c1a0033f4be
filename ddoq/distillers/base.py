"""What methods that optimise images share: options, starts, batches."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from ddoq.distillers.features import features, settled
from ddoq.distillers.influence import Influence
from ddoq.distillers.selection import STARTS, early_losses, losses_after, lowest, mixed
from ddoq.distillers.synthetic import Synthetic
from ddoq.distillers.task import Batch, Task
from ddoq.errors import ConfigError
from ddoq.evaluation.dsa import check_operations, draw_dsa
from ddoq.options import (
    Decided,
    Fraction,
    NotNegativeInt,
    OfStages,
    PositiveFloat,
    PositiveInt,
    Share,
    check_options,
)
from ddoq.utils.seeding import item_generator

Closure = Callable[[], Tensor]  # a loss, a scalar that depends on the task's synthetic images
#: ``update(*closures)``: the gradient of their sum, and one step of the optimizer. The graph of
#: each is freed before the next is called, so that classes one by one need the memory of one.
Update = Callable[..., None]


@dataclass(kw_only=True)
class Distiller(ABC):
    """A method: optimises K images per class. Subclasses say what a step is.

    Args:
        num_steps: outer steps; with 0, the images are those of the start.
        learning_rate: of the images, for SGD.
        momentum: of that SGD.
        batch_size: real images per class and step; a smaller class gives each of its images about
            equally often.
        start: what the images are before the first step: ``random`` training images of their
            class, or ``noise``, N(0, 1) in the units that networks see; training images by
            ``herding`` of pixels, or by their ``sensitivity`` in k-means of pixels; or the decoded
            points of the run's quantizer, its ``codebook``.
        dsa: operations of Siamese augmentation joined by ``_``, of which each step draws one,
            empty for none. One draw holds for the real and synthetic images of all classes, where
            DC-Bench draws anew for each class: in expectation the same, and one pass per network.
        partition: every stored image holds so many in the square, each enlarged to the whole
            wherever networks see it (IDC, IDM, M3D); 1 is off.
        prune: share of each class that is left out from the beginning: the images with the largest
            loss in a network of ``prune_epochs`` epochs (BiLP's static level).
        prune_epochs: of that network; the losses are means over them.
        importance: share of a batch's images that are drawn by their loss in a network that the
            images have trained, and not evenly; weights keep its means those of the class.
        adaptive: share of each class that is left out on the way: the images with the least and
            those with the most influence on the step of the synthetic images, in equal numbers
            (BiLP's adaptive level); for losses that know the training images by their mean.
        refresh: steps between two such networks, or two looks at the influence of a batch.
        masses: let each image count as the training images of its class that are nearest to it;
            see ``counts``. Otherwise all count alike.
        rules: decide what is ``null``. A rule has conditions (``min_ipc``, ``max_ipc``,
            ``datasets``, a list of names) and values; the first that holds and sets a value
            decides it.

    Raises:
        ConfigError: an option is outside its range.
    """

    num_steps: Decided[NotNegativeInt]
    learning_rate: Decided[PositiveFloat]
    momentum: Fraction = 0.5
    batch_size: Decided[PositiveInt] = 256
    start: Literal["random", "noise", "herding", "sensitivity", "codebook"] = "random"
    dsa: Decided[str]
    partition: Decided[PositiveInt] = 1
    prune: Fraction = 0.0
    prune_epochs: PositiveInt = 5
    importance: Share = 0.0
    adaptive: Fraction = 0.0
    refresh: PositiveInt = 50
    masses: bool = False
    rules: OfStages[Sequence[Mapping[str, Any]]] = ()

    def __post_init__(self) -> None:
        check_options(self, "method")
        check_operations(self.dsa, "method.dsa")
        if self.start == "codebook" and self.partition > 1:
            cause = f"method.partition: {self.partition}, and a codebook has one point per image"
            raise ConfigError(cause, "set method.partition=1, or method.start=random")

    @abstractmethod
    def step(self, task: Task, batch: Batch, update: Update) -> None:
        """Make one outer step: hand one or several losses to ``update``."""

    def begin(self, task: Task) -> None:
        """Give a task its synthetic images, at their start, and the networks that live on."""
        if self.prune:
            losses = early_losses(task, self.prune_epochs)
            task.positions = [lowest(rows, losses, 1 - self.prune) for rows in task.positions]
        task.synthetic = self.synthetic(task)
        task.networks = self.networks(task)
        if self.adaptive:
            task.influence = Influence(len(task.images), task.num_classes, self.adaptive)

    def networks(self, task: Task) -> nn.ModuleList:
        """Return the networks that live through the steps, as they begin; none by default."""
        return nn.ModuleList()

    def num_in_graph(self, task: Task) -> int:
        """Return how many images have to be held with all that a network makes of them."""
        orders = 3 if self.adaptive else 1  # its influence is a derivative of the gradient
        return orders * task.num_classes * task.ipc * self.partition**2

    def influence(self, task: Task, batch: Batch) -> Tensor:
        """Return by how much, to first order, the step of the synthetic images would be longer
        without each image of a batch, ``[num_classes, B]``; of methods that take ``adaptive``.
        """
        raise NotImplementedError

    def by_influence(self, task: Task, batch: Batch) -> Batch:
        """Return a batch in which images of too little or too much influence weigh nothing, where
        that is asked for.
        """
        if self.adaptive:
            if batch.step % self.refresh == 0:
                task.influence.note(batch.rows, self.influence(task, batch).abs())
            batch.weights *= task.influence.weights(batch.rows)
        return batch

    def by_importance(self, task: Task, batch: Batch) -> Batch:
        """Return a batch whose images are drawn by their loss, where that is asked for."""
        if not self.importance:
            return batch
        if batch.step % self.refresh == 0:
            task.chances.copy_(losses_after(task, batch.step))
        generator = item_generator(task.seed, "importance", batch.step)
        for label, rows in enumerate(task.positions):
            chances = mixed(task.chances[rows].cpu(), self.importance)
            places = chances.multinomial(batch.rows.shape[1], True, generator=generator)
            batch.rows[label] = rows[places]
            batch.weights[label] = 1 / (len(rows) * chances[places])
        return batch

    def network(self, task: Task, step: int) -> nn.Module:
        """Return the network in which a step compares images."""
        return task.network(step)

    def synthetic(self, task: Task) -> Synthetic:
        """Return what is optimised, at its start, on the CPU.

        A class with fewer images than are needed repeats some, each about equally often.
        """
        num = task.ipc * self.partition**2
        random = [item_generator(task.seed, "start", label) for label in range(task.num_classes)]
        if self.start == "noise":
            shape = (num, *task.image_shape)
            images = [torch.randn(shape, generator=generator) for generator in random]
            none = torch.full((task.num_classes, num), -1)
            return Synthetic(torch.stack(images), none, self.partition)
        if self.start == "codebook":
            images = (task.decoded - task.mean.cpu()) / task.std.cpu()
            return Synthetic(images, torch.full(images.shape[:2], -1))
        classes = zip(task.positions, random, strict=True)
        sources = torch.stack([self._started(task, *own, num) for own in classes])
        return Synthetic(task.normalized(sources).cpu(), sources, self.partition)

    def _started(self, task: Task, rows: Tensor, generator: Generator, num: int) -> Tensor:
        """Return the images that a class begins with, of its ``rows``."""
        if self.start == "random" or len(rows) <= num:
            return drawn(rows, num, generator)
        pixels = task.normalized(rows).flatten(1).cpu()
        return rows[STARTS[self.start](pixels, num, generator)]

    def batch(self, task: Task, step: int) -> Batch:
        """Return the batch of a step, on the CPU. B is at most the size of the largest class."""
        size = min(self.batch_size, max(map(len, task.positions)))
        generator = item_generator(task.seed, "rows", step)
        rows = torch.stack([drawn(positions, size, generator) for positions in task.positions])
        generator = item_generator(task.seed, "augment", step)
        side = task.image_shape[-1]
        draws = draw_dsa(self.dsa, 1, side, generator) if self.dsa else {}
        return Batch(step, rows, draws, torch.ones(rows.shape))

    def optimizer(self, synthetic: Synthetic) -> torch.optim.Optimizer:
        """Return the optimizer of the images."""
        return torch.optim.SGD(synthetic.parameters(), self.learning_rate, momentum=self.momentum)

    @torch.no_grad()
    def counts(self, task: Task) -> Tensor:
        """Return how many training images each image stands for, int64 ``[n]``, on the CPU.

        With ``masses`` these are the training images of its class to which no other image is
        nearer, in the features of the last step's network, without augmentation: the cells of a
        quantization of the class in the last space in which the method compared images with it.
        An image may have none. Otherwise all are 1.
        """
        if not self.masses:
            return torch.ones(len(task.synthetic), dtype=torch.int64)
        last = self.num_steps - 1
        batch = self.batch(task, last)
        network = settled(self.network(task, last), task.normalized(batch.rows).flatten(0, 1))
        counts = []
        for positions, images in zip(task.positions, task.synthetic(), strict=True):
            real = features(network, task.normalized(positions))
            nearest = torch.cdist(real, features(network, images)).argmin(1).cpu()
            nearest //= self.partition**2
            counts.append(nearest.bincount(minlength=task.ipc))
        return torch.cat(counts)


def drawn(positions: Tensor, num: int, generator: Generator) -> Tensor:
    """Return ``num`` positions without replacement, in rounds where there are fewer."""
    rounds = range(math.ceil(num / len(positions)))
    order = [torch.randperm(len(positions), generator=generator) for _ in rounds]
    return positions[torch.cat(order)[:num]]
