"""Train one student on a weighted set and measure it."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ddoq.data.distilled import TrainingSet
from ddoq.engine.fit import StudentModule
from ddoq.engine.trainer import fit_steps
from ddoq.evaluation.augment import draw_augmentation
from ddoq.evaluation.protocol import Protocol
from ddoq.utils.seeding import item_generator


class Normalize(nn.Module):
    """Maps uint8 images to zero mean and unit variance, per channel, by the training split's statistics."""

    def __init__(self, mean: list[float], std: list[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return floats of the same shape."""
        return (images.float() / 255 - self.mean) / self.std


def train_student(
    network: nn.Module,
    data: TrainingSet,
    test: tuple[Tensor, Tensor],
    protocol: Protocol,
    normalize: Normalize,
    seed: int,
    accelerator: str,
) -> list[float]:
    """Train ``network`` in place; return its accuracies (fractions), the last epoch's last.

    Args:
        network: freshly initialised.
        data: what to train on.
        test: uint8 images ``[n, C, H, W]`` and labels ``[n]``.
        protocol: the recipe.
        normalize: first layer of the student.
        seed: of the order and the augmentation.
        accelerator: Lightning's.
    """
    num_images, size = len(data.images), protocol.batch_size

    @lru_cache(maxsize=4)
    def order(epoch: int) -> Tensor:
        return torch.randperm(num_images, generator=item_generator(seed, "order", epoch))

    def make_batch(step: int) -> tuple[Tensor, ...]:
        # Batches run through the permuted epochs without a gap, so the last images of an epoch are never dropped.
        places = range(step * size, (step + 1) * size)
        epochs = range(places[0] // num_images, places[-1] // num_images + 1)
        chosen = torch.cat([order(epoch) for epoch in epochs])[places[0] - epochs[0] * num_images :][:size]
        draws = draw_augmentation(size, protocol.shift, protocol.flip, item_generator(seed, "augment", step))
        return data.images[chosen], data.targets[chosen], data.weights[chosen], *draws

    module = StudentModule(network, protocol, normalize, data.temperature)
    fit_steps(
        module,
        make_batch,
        protocol.num_steps,
        title="train student",
        accelerator=accelerator,
        num_epochs=protocol.num_evaluations,
        validation=DataLoader(TensorDataset(*test), batch_size=500),
    )
    return module.accuracies
