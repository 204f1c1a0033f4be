"""BiLP's adaptive level: which training images move the synthetic ones neither too little nor too
much.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_MOMENTUM = 0.9  # of the running quantiles


class Influence(nn.Module):
    """What is known of the influence of training images; all of it is in buffers.

    Args:
        num_images: of the train split, N.
        num_classes: of the data set.
        share: of a class that is left out, the half of it with the least and the half with the
            most influence.

    Attributes:
        sizes: the influence of each image when it was last looked at, NaN before; ``[N]``.
        bounds: between which influences are kept, by class, ``[num_classes, 2]``: running means
            of the quantiles of batches.
    """

    def __init__(self, num_images: int, num_classes: int, share: float):
        super().__init__()
        self.register_buffer("sizes", torch.full((num_images,), torch.nan))
        self.register_buffer("bounds", torch.full((num_classes, 2), torch.nan))
        self.levels = share / 2, 1 - share / 2

    def note(self, rows: Tensor, sizes: Tensor) -> None:
        """Take in the influence ``[num_classes, B]`` of the images of a batch, by their rows."""
        self.sizes[rows] = sizes
        bounds = torch.quantile(sizes, sizes.new_tensor(self.levels), dim=1).T
        before = torch.where(self.bounds.isnan(), bounds, self.bounds)
        self.bounds.copy_(before.lerp(bounds, 1 - _MOMENTUM))

    def weights(self, rows: Tensor) -> Tensor:
        """Return weights of mean 1 within each class, 0 for what is left out, given the rows of a
        batch ``[num_classes, B]``. What was never looked at stays; so does a class of which
        nothing else would.
        """
        low, high = self.bounds[..., None].unbind(1)
        kept = ~((self.sizes[rows] < low) | (self.sizes[rows] > high))
        kept |= ~kept.any(1, keepdim=True)
        return kept / kept.float().mean(1, keepdim=True)


def pull(loss: Tensor, images: Tensor, means: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the derivative of the size of the gradient of the images by what a loss knows of the
    training images, shaped as that.

    A mean over n training images moves by ``(mean - value of one) / (n - 1)`` when one is left
    out: by so much along the derivative changes, to first order, the step of the images.

    Args:
        loss: a scalar.
        images: that the loss moves, by class ``[num_classes, ...]``; classes do not interact.
        means: over training images, of which the loss is a function.
    """
    (gradient,) = torch.autograd.grad(loss, images, create_graph=True)
    size = gradient.flatten(1).norm(dim=1).sum()
    return torch.autograd.grad(size, means, materialize_grads=True)
