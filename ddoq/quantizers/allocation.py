"""How many points every class gets out of a common budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor

from ddoq.errors import ConfigError
from ddoq.quantizers.cloud import PointCloud


def allocate(gains: Sequence[np.ndarray], budget: int) -> np.ndarray:
    """Share ``budget`` points among classes so that the summed quantization error is lowest;
    at least one each.

    ``gains[c][j]`` is the squared error, summed over the latents of class c, that its (j + 2)-th
    point removes, in falling order: the merging costs of Ward's hierarchy, read from the top.
    Taking the largest gains over all classes is one cut through all hierarchies at the same height,
    and the optimal share for these gains.

    Returns:
        Points per class ``[C]``, at least 1 and at most ``len(gains[c]) + 1``;
        their sum is ``budget``.

    Raises:
        ConfigError: fewer points than classes, or more than latents.
    """
    most = sum(len(gain) + 1 for gain in gains)
    if not len(gains) <= budget <= most:
        raise ConfigError(
            f"ipc: a budget of {budget} points for {len(gains)} classes with {most} latents",
            f"set ipc so that the budget is between {len(gains)} and {most}, or allocation=equal",
        )
    owner = np.repeat(np.arange(len(gains)), [len(gain) for gain in gains])
    order = np.argsort(-np.concatenate([np.asarray(gain) for gain in gains]), kind="stable")
    return 1 + np.bincount(owner[order[: budget - len(gains)]], minlength=len(gains))


def class_gains(latents: Tensor, generator: Generator) -> np.ndarray:
    """Return the summed squared error that each further point of a class removes, in falling order.

    From Ward's hierarchy; that of a class of more
    than 4,096 latents comes from a sample, scaled up.
    """
    cloud = PointCloud(latents)
    num = len(cloud)
    if num > _SAMPLE:
        cloud = cloud.subset(
            torch.randperm(num, generator=generator)[:_SAMPLE].sort().values.numpy()
        )
    return cloud.dendrogram[::-1, 2] ** 2 / 2 * (num / len(cloud))


_SAMPLE = 4096
