"""Matching gradients of networks while they are trained: DC, and with augmentation DSA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddoq.distillers.base import Distiller, Update
from ddoq.distillers.features import num_at_once, settled
from ddoq.distillers.influence import pull
from ddoq.distillers.synthetic import labels_of
from ddoq.distillers.task import Batch, Task
from ddoq.evaluation.dsa import apply_dsa, draw_dsa
from ddoq.options import Decided, PositiveFloat, PositiveInt
from ddoq.utils.seeding import item_generator

_PER_CLASS = 16  # real images that set the statistics of batch norms, as in the authors' code
_TINY = 1e-6  # added to products of norms, as in the authors' code

Distance = Literal["rows", "cosine", "mse"]


@dataclass(kw_only=True)
class DC(Distiller):
    """``sum_c D(grad L(x_c), grad L(s_c))`` of networks on their way (Zhao et al. 2021).

    A network starts at random, and the images that it has seen train it: a step of the images
    for all classes, ``epochs`` of training on them, and so on, ``loops`` times; then the next.
    With ``dsa``, both gradients are those of augmented images (DSA, Zhao & Bilen 2021).

    Args:
        num_steps: of the images, over all networks.
        loops: steps of the images with each network.
        epochs: of training a network between two steps, on the images as they are by then.
        distance: of two gradients. ``rows``: 1 - cosine for each output of each layer, summed
            (biases and norms do not count); ``cosine``: 1 - cosine of all together; ``mse``: the
            squared distance of all together.
        network_rate: learning rate of the networks, for SGD without momentum.
        network_batch: images per step of a network.
    """

    loops: Decided[PositiveInt]
    epochs: Decided[PositiveInt]
    distance: Distance = "rows"
    network_rate: PositiveFloat = 0.01
    network_batch: PositiveInt = 256

    def networks(self, task: Task) -> nn.ModuleList:
        """Return the one that is being trained."""
        return nn.ModuleList([task.network(0).requires_grad_()])

    def network(self, task: Task, step: int) -> nn.Module:
        """Return it."""
        return task.networks[0]

    def num_in_graph(self, task: Task) -> int:
        """Return those of one class; synthetic ones with the graph of their gradients, too."""
        real = min(self.batch_size, max(map(len, task.positions)))
        return max(real, 3 * task.ipc * self.partition**2)

    def step(self, task: Task, batch: Batch, update: Update) -> None:
        """Match the gradients of each class, then train the network on the images."""
        network, loop = self._settled(task, batch)
        update(*(partial(self._loss, task, batch, label) for label in range(task.num_classes)))
        if loop + 1 < self.loops:
            self._train(network, task, batch.step)

    def influence(self, task: Task, batch: Batch) -> Tensor:
        """Return that of the gradients, class by class."""
        self._settled(task, batch)
        return torch.stack([self._influence(task, batch, c) for c in range(task.num_classes)])

    def _settled(self, task: Task, batch: Batch) -> tuple[nn.Module, int]:
        """Return the network as a step finds it, and how many steps it has seen."""
        (network,) = task.networks
        number, loop = divmod(batch.step, self.loops)
        if loop == 0:
            network.load_state_dict(task.network(number).state_dict())
        some = task.normalized(batch.rows[:, :_PER_CLASS]).flatten(0, 1)
        return settled(network, some), loop

    def _loss(self, task: Task, batch: Batch, label: int) -> Tensor:
        """Return the distance of the gradients of a class, a scalar."""
        real = _mean_gradient(task.networks[0], *self._real(task, batch, label), label)
        return self._distance_to(real, task, batch, label)

    def _influence(self, task: Task, batch: Batch, label: int) -> Tensor:
        """Return the influence of the images of a class, ``[B]``."""
        real, weights = self._real(task, batch, label)
        gradient = _mean_gradient(task.networks[0], real, torch.ones_like(weights), label)
        means = [mean.requires_grad_() for mean in gradient]
        slopes = pull(self._distance_to(means, task, batch, label), task.synthetic.images, means)
        # the product of each image's gradient with the slopes, without the gradients themselves:
        # their weighted sum is linear in the weights
        losses = _losses(task.networks[0], real, label)
        weights = torch.zeros_like(losses, requires_grad=True)
        parameters = list(task.networks[0].parameters())
        sums = torch.autograd.grad(losses, parameters, weights, create_graph=True)
        product = sum((a * b).sum() for a, b in zip(sums, slopes, strict=True))
        (products,) = torch.autograd.grad(product, weights)
        return (products.mean() - products).detach() / max(1, len(products) - 1)

    def _real(self, task: Task, batch: Batch, label: int) -> tuple[Tensor, Tensor]:
        """Return the real images of a class, augmented, and their weights."""
        return task.real(batch, slice(label, label + 1))[0], batch.weights[label]

    def _distance_to(self, real: Sequence[Tensor], task: Task, batch: Batch, label: int) -> Tensor:
        """Return how far the gradient of the synthetic images of a class is from the real one."""
        images = task.fake(batch, slice(label, label + 1))[0]
        loss = _losses(task.networks[0], images, label).mean()
        fake = torch.autograd.grad(loss, list(task.networks[0].parameters()), create_graph=True)
        return distance(real, fake, self.distance)

    def _train(self, network: nn.Module, task: Task, step: int) -> None:
        """Train a network on the synthetic images as they are, in place."""
        network.train()
        by_class = task.synthetic().detach()
        images, labels = by_class.flatten(0, 1), labels_of(by_class)
        optimizer = torch.optim.SGD(network.parameters(), self.network_rate)
        generator = item_generator(task.seed, "train", step)
        for _ in range(self.epochs):
            order = torch.randperm(len(images), generator=generator).to(images.device)
            for rows in order.split(self.network_batch):
                some = images[rows]
                if self.dsa:
                    draws = draw_dsa(self.dsa, len(some), some.shape[-1], generator)
                    some = apply_dsa(some, {k: v.to(some.device) for k, v in draws.items()})
                optimizer.zero_grad()
                cross_entropy(network(some), labels[rows]).backward()
                optimizer.step()
        optimizer.zero_grad()


def _losses(network: nn.Module, images: Tensor, label: int) -> Tensor:
    """Return the cross-entropy of each of a class's images, ``[n]``."""
    logits = network(images)
    labels = torch.full((len(logits),), label, device=logits.device)
    return cross_entropy(logits, labels, reduction="none")


def _mean_gradient(network: nn.Module, images: Tensor, weights: Tensor, label: int) -> list[Tensor]:
    """Return the gradient of the weighted mean loss of a class's images, by parameter.

    They pass in parts, which on a CPU stay in its caches.
    """
    parameters = list(network.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    size = num_at_once(images)
    for some, own in zip(images.split(size), weights.split(size), strict=True):
        loss = (own * _losses(network, some, label)).sum() / len(images)
        for mean, part in zip(total, torch.autograd.grad(loss, parameters), strict=True):
            mean += part
    return total


def distance(real: Sequence[Tensor], fake: Sequence[Tensor], kind: Distance = "rows") -> Tensor:
    """Return the distance of two gradients, a scalar; differentiable in ``fake``.

    Args:
        real, fake: by parameter of the network.
        kind: see ``DC``.
    """
    if kind == "rows":
        pairs = zip(real, fake, strict=True)
        return sum((_row_distance(a, b) for a, b in pairs if a.ndim > 1), fake[0].new_zeros(()))
    a, b = (torch.cat([gradient.flatten() for gradient in part]) for part in (real, fake))
    return (a - b).square().sum() if kind == "mse" else _row_distance(a[None], b[None])


def _row_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum over outputs of 1 - cosine, of the gradients of one layer ``[out, ...]``."""
    a, b = a.flatten(1), b.flatten(1)
    return (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + _TINY)).sum()
