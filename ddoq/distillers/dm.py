"""Distribution matching."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ddoq.distillers.base import Batch, Distiller, Task, Update
from ddoq.distillers.features import class_means


@dataclass(kw_only=True)
class DM(Distiller):
    """``sum_c |mean_i f(x_ci) - mean_k f(s_ck)|²``, f being the features of a random network.

    Zhao & Bilen 2023, section 3; every step draws another network, which is never trained. All
    classes pass through it together, so that batch norm has one mean and variance for all of
    them, as in the authors' code.
    """

    def step(self, task: Task, batch: Batch, update: Update) -> None:
        """Match the mean features of each class."""
        network = task.network(batch.step)
        with torch.no_grad():
            real = class_means(network, task.real(batch))
        update(lambda: (class_means(network, task.fake(batch)) - real).square().sum())
