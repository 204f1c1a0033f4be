"""Matching distributions of features in random networks: DM, and in a kernel's space M3D."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from ddoq.distillers.base import Distiller, Update
from ddoq.distillers.features import class_features
from ddoq.distillers.influence import pull
from ddoq.distillers.task import Batch, Task
from ddoq.options import PositiveInt, Unused

_WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of Gaussian kernels, in mean squared distances


@dataclass(kw_only=True)
class DM(Distiller):
    """``sum_c |mean_i f(x_ci) - mean_k f(s_ck)|²``, f being the features of a random network.

    Zhao & Bilen 2023, section 3; every step draws another network, which is never trained. All
    classes pass through it together, so that batch norm has one mean and variance for all of
    them, as in the authors' code.
    """

    def influence(self, task: Task, batch: Batch) -> Tensor:
        """Return that of the features, by the mean of each class."""
        network, real = self._real(task, batch)
        means = real.mean(1, keepdim=True).requires_grad_()
        fake = class_features(network, task.fake(batch))
        loss = self.discrepancy(means, fake, means.new_ones(means.shape[:2]))
        (slope,) = pull(loss, task.synthetic.images, [means])
        return ((means - real) * slope).sum(2).detach() / max(1, real.shape[1] - 1)

    def step(self, task: Task, batch: Batch, update: Update) -> None:
        """Match the features of each class."""
        network, real = self._real(task, batch)

        def loss() -> Tensor:
            return self.discrepancy(real, class_features(network, task.fake(batch)), batch.weights)

        update(loss)

    @torch.no_grad()
    def _real(self, task: Task, batch: Batch) -> tuple[nn.Module, Tensor]:
        """Return the network of a step, and the features of the real images in it."""
        network = self.network(task, batch.step)
        return network, class_features(network, task.real(batch))

    def discrepancy(self, real: Tensor, fake: Tensor, weights: Tensor) -> Tensor:
        """Return how far the features of the classes are apart, summed over them; a scalar.

        Args:
            real: ``[num_classes, B, F]``.
            fake: ``[num_classes, K, F]``.
            weights: of the real ones, ``[num_classes, B]``.
        """
        return (fake.mean(1) - (weights[..., None] * real).mean(1)).square().sum()


@dataclass(kw_only=True)
class M3D(DM):
    """DM in the space of a kernel: all moments of the features, not their mean alone.

    The squared maximum mean discrepancy of each class, ``mean k(x, x') - 2 mean k(x, s) + mean
    k(s, s')`` (Zhang et al. 2024).

    Args:
        kernel: ``gaussian``: the sum of five whose widths are 1/4 to 4 mean squared distances of
            the class's features, real and synthetic; ``linear``: DM; ``polynomial``:
            ``(1 + <a, b>)²``.
        steps_per_network: of the images, before the next network is drawn.
        adaptive: 0: a kernel compares more than means.
    """

    kernel: Literal["gaussian", "linear", "polynomial"] = "gaussian"
    steps_per_network: PositiveInt = 1
    adaptive: Annotated[float, Unused("a kernel compares more than means", "dm, dc or dsa")] = 0.0

    def network(self, task: Task, step: int) -> nn.Module:
        """Return the network that several steps share."""
        return task.network(step // self.steps_per_network)

    def discrepancy(self, real: Tensor, fake: Tensor, weights: Tensor) -> Tensor:
        """Return the sum of the squared discrepancies of the classes, a scalar."""
        num, both = real.shape[1], torch.cat([real, fake], 1)
        signed = torch.cat([weights / num, fake.new_full(fake.shape[:2], -1 / fake.shape[1])], 1)
        return (signed[:, None] @ self._kernel(both) @ signed[..., None]).sum()

    def _kernel(self, points: Tensor) -> Tensor:
        """Return the kernel of points ``[num_classes, n, F]``, ``[num_classes, n, n]``."""
        products = points @ points.mT
        if self.kernel == "linear":
            return products
        if self.kernel == "polynomial":
            return (1 + products).square()
        norms = products.diagonal(dim1=1, dim2=2)
        squares = (norms[:, :, None] + norms[:, None] - 2 * products).clamp(min=0)
        num = points.shape[1]
        scale = squares.detach().sum((1, 2), keepdim=True) / (num * (num - 1))
        return sum(torch.exp(-squares / (width * scale)) for width in _WIDTHS)
