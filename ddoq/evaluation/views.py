"""What a student sees: which images at which step,
and the random numbers that make views of them.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from ddoq.evaluation.augment import Draws
from ddoq.evaluation.protocol import Protocol
from ddoq.utils.seeding import item_generator


class Views:
    """The views of a training: a function of seed and step alone, whatever device trains,
    whenever it resumes.

    Args:
        protocol: resolved.
        num_images: of the data set.
        image_size: side of the images.
        seed: of order and augmentation.
        weights: ``[num_images]``, where images are drawn by them.
    """

    def __init__(
        self,
        protocol: Protocol,
        num_images: int,
        image_size: int,
        seed: int,
        weights: Tensor | None = None,
    ):
        self.protocol = protocol
        self.num_images = num_images
        self.image_size = image_size
        self.seed = seed
        self.weights = weights if protocol.weights.use == "sampling" else None
        self.num_steps = protocol.length(num_images)
        self._order = lru_cache(maxsize=4)(self._draw_order)

    def _draw_order(self, epoch: int) -> Tensor:
        generator = item_generator(self.seed, "order", epoch)
        if self.weights is not None:
            return torch.multinomial(
                self.weights, self.num_images, replacement=True, generator=generator
            )
        return torch.randperm(self.num_images, generator=generator)

    @property
    def num_epochs(self) -> int:
        """The number of epochs, the last one perhaps unfinished."""
        return self.protocol.epochs or math.ceil(
            self.num_steps * self.protocol.batch_size / self.num_images
        )

    def places(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the images of a step and the epoch of each, int64 ``[B]``: the key of a view."""
        size, num = self.protocol.batch_size, self.num_images
        if self.protocol.epochs is not None:
            epoch, batch = divmod(step, math.ceil(num / size))
            rows = self._order(epoch)[batch * size : (batch + 1) * size]
            return rows, torch.full_like(rows, epoch)
        # Batches run through the permuted epochs without a gap,
        # so the last images of an epoch are never dropped.
        positions = torch.arange(step * size, (step + 1) * size)
        epochs = positions // num
        order = {epoch: self._order(epoch) for epoch in epochs.unique().tolist()}
        rows = torch.cat([order[epoch][positions[epochs == epoch] % num] for epoch in order])
        return rows, epochs

    def steps_of(self, epoch: int) -> range:
        """Return the steps that see images of an epoch."""
        size, num = self.protocol.batch_size, self.num_images
        if self.protocol.epochs is not None:
            per_epoch = math.ceil(num / size)
            return range(epoch * per_epoch, (epoch + 1) * per_epoch)
        return range(epoch * num // size, min(self.num_steps, math.ceil((epoch + 1) * num / size)))

    def draws(self, step: int) -> Draws:
        """Return the random numbers of the views of a step."""
        num = len(self.places(step)[0])
        return self.protocol.augmentation.draw(
            num, self.image_size, item_generator(self.seed, "augment", step)
        )
