"""Images of a class one after another, classes side by side: for guidances that remember."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ddoq.engine.memory import FittingBatches
from ddoq.generators import LatentDiffusion
from ddoq.generators.base import Points
from ddoq.guidances import Finished

#: Classes in a batch: enough for a GPU, and few enough that processes have some each.
_SIDE_BY_SIDE = 8


def batches_of_classes(labels: Tensor, batch_size: int) -> list[list[int]]:
    """Return batches of rows that hold all points of some classes, about as many classes each.

    Args:
        labels: of the points, ``[n]``.
        batch_size: the most classes of a batch.
    """
    classes = [torch.nonzero(labels == label).flatten() for label in labels.unique()]
    num_batches = -(-len(classes) // min(_SIDE_BY_SIDE, batch_size))
    parts = np.array_split(np.arange(len(classes)), num_batches)
    return [torch.cat([classes[number] for number in part]).tolist() for part in parts]


def in_rounds(
    generator: LatentDiffusion, points: Points, index: Tensor, fitting: FittingBatches
) -> Tensor:
    """Return the images of a batch ``[B, C, H, W]``, on the CPU: the first of every class, then
    the second, which finds those before it in memory, and so on.

    Args:
        generator: with a guidance that remembers.
        points: all of some classes.
        index: number of each point within its class ``[B]``.
        fitting: cuts rounds that do not fit onto the device.
    """
    finished, images = Finished(), {}
    for number in index.unique().tolist():
        rows = torch.nonzero(index == number).flatten().tolist()
        now = points.at(rows)
        made = fitting(
            len(now),
            lambda part, now=now: generator.generate(now.part(part), finished),
        )
        images |= dict(zip(rows, made.cpu(), strict=True))
    return torch.stack([images[row] for row in range(len(points))])
