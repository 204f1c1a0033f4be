"""What a method is given: the task, and the batch of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ddoq.data.floats import as_floats
from ddoq.distillers.influence import Influence
from ddoq.distillers.synthetic import Synthetic
from ddoq.evaluation.augment import Draws
from ddoq.evaluation.dsa import siamese

ALL_CLASSES = slice(None)


@dataclass
class Batch:
    """All that is random in a step beside networks: a function of seed and step alone.

    So a killed fit resumes exactly. (Not frozen: Lightning takes no frozen dataclass for a batch.)

    Attributes:
        step: number of the step.
        rows: training images, by class; int64 ``[num_classes, B]``.
        draws: of the augmentation, for one image: all of the step, real and synthetic, share it.
        weights: of the training images, by which means over them are those over their class;
            ``[num_classes, B]``.
    """

    step: int
    rows: Tensor
    draws: Draws
    weights: Tensor


class Task(nn.Module):
    """What a method is given. Its buffers live on the device.

    Args:
        images: of the train split, uint8 ``[N, C, H, W]``.
        labels: int64 ``[N]``; no class is empty.
        num_classes: of the data set.
        ipc: images per class to make, K.
        mean, std: of the channels, ``[C]``: networks see ``(x - mean) / std`` of pixels in [0, 1].
        make_network: returns a fresh network on the CPU in training mode, the same for the same
            arguments. See ``network``.
        seed: of everything drawn.
        decoded: points of a quantizer as images, ``[num_classes, K, C, H, W]`` in [0, 1], where
            the method starts from a codebook.

    Attributes:
        synthetic: what is optimised.
        networks: those that live through the steps, and are part of a checkpoint.
        chances: of training images to be drawn, ``[N]``; see ``Distiller.importance``.

        influence: of training images, where the method asks for it; see ``Distiller.adaptive``.

    But for ``chances`` they are set by ``Distiller.begin``, before the first step.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        num_classes: int,
        ipc: int,
        mean: Tensor,
        std: Tensor,
        make_network: Callable[..., nn.Module],
        seed: int,
        decoded: Tensor | None = None,
    ):
        super().__init__()
        self.decoded = decoded
        self.num_classes, self.ipc, self.seed = num_classes, ipc, seed
        self.positions = [torch.nonzero(labels == label).flatten() for label in range(num_classes)]
        self._make_network = make_network
        self.register_buffer("images", images, persistent=False)
        self.register_buffer("labels", labels, persistent=False)
        self.register_buffer("mean", mean.reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", std.reshape(-1, 1, 1), persistent=False)
        self.synthetic: Synthetic | None = None
        self.networks = nn.ModuleList()
        self.influence: Influence | None = None
        self.register_buffer("chances", torch.ones(len(images)))

    @property
    def image_shape(self) -> torch.Size:
        """``(C, H, W)``."""
        return self.images.shape[1:]

    def network(self, *parts: object) -> nn.Module:
        """Return a fresh network of the run's student, frozen, in training mode, on the device.

        The same ``parts`` give the same weights.
        """
        return self._make_network(*parts).to(self.images.device).requires_grad_(False)

    def normalized(self, rows: Tensor) -> Tensor:
        """Return training images ``[..., C, H, W]`` as networks see them, given rows ``[...]``."""
        return (as_floats(self.images[rows]) - self.mean) / self.std

    def real(self, batch: Batch, classes: slice = ALL_CLASSES) -> Tensor:
        """Return the batch's training images, augmented, ``[num_classes, B, C, H, W]``.

        ``classes``: only these.
        """
        return self._augmented(self.normalized(batch.rows[classes]), batch)

    def fake(self, batch: Batch, classes: slice = ALL_CLASSES) -> Tensor:
        """Return the synthetic images, augmented alike; differentiable.

        They are ``[num_classes, K * partition², C, H, W]``; ``classes``: only these.
        """
        return self._augmented(self.synthetic()[classes], batch)

    @torch.no_grad()
    def pixels(self) -> Tensor:
        """Return the stored images in units of [0, 1], not clipped, ``[n, C, H, W]``."""
        return (self.synthetic.images * self.std + self.mean).flatten(0, 1)

    @staticmethod
    def _augmented(images: Tensor, batch: Batch) -> Tensor:
        return siamese(images.flatten(0, 1), batch.draws).unflatten(0, images.shape[:2])
