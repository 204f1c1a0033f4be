"""How the weights of a distilled set reach the student."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class WeightUse:
    """Which weights a student is trained with.

    Args:
        use: ``loss``: the weight multiplies the image's loss; ``sampling``: images are drawn
            with replacement, with probabilities proportional to their weights; ``none``:
            weights are ignored.
        normalize: ``class``: mean 1 within each class; ``global``: mean 1 over all images, where a
            class weighs as its number of training images; ``batch``: mean 1 within each batch
            (WMDD, Liu et al. 2025); ``paper``: sum √K over the K images of a class, if they differ,
            reconstructed from third-party code (see ``ddoq.quantizers.Paper``): under SGD a rate
            √K times smaller, under AdamW next to nothing.
        mixed: under CutMix and mixup: ``both`` images count with their weights and shares, so the
            label is ``(λ w_a y_a + (1 - λ) w_b y_b) / w`` and its weight
            ``w = λ w_a + (1 - λ) w_b``; ``base``: the label is ``λ y_a + (1 - λ) y_b`` and its
            weight that of the base image (WMDD).
    """

    use: Literal["loss", "sampling", "none"] = "loss"
    normalize: Literal["class", "global", "batch", "paper"] = "class"
    mixed: Literal["both", "base"] = "both"

    def of_set(self, weights: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
        """Return the weights of a whole set.

        Args:
            weights: ``[n]``, of mean 1 within each class.
            labels: ``[n]``, int64.
            counts: ``[n]``, training images that each image stands for.
        """
        if self.use == "none":
            return torch.ones_like(weights)
        if self.normalize == "paper":
            return _of_root_sums(weights, labels)
        if self.normalize != "global":
            return weights
        of_class = torch.zeros(int(labels.max()) + 1, dtype=torch.float64).index_add(
            0, labels, counts.double()
        )
        # Weights of a class sum to its number of points,
        # which differs between classes where points are allocated.
        per_point = (of_class / labels.bincount().clamp_min(1))[labels]
        scaled = weights * per_point.to(weights.dtype)
        return scaled / scaled.mean()

    def of_batch(self, weights: Tensor) -> Tensor:
        """Return the weights of a batch."""
        return weights / weights.mean().clamp_min(1e-12) if self.normalize == "batch" else weights

    def mix(
        self, targets: Tensor, weights: Tensor, partner: Tensor, share: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the labels and weights of mixed images.

        Args:
            targets: label distributions ``[B, C]``.
            weights: ``[B]``.
            partner: row of the image that each is mixed with, int64 ``[B]``.
            share: of the base image, ``[B]``.

        Returns:
            Distributions ``[B, C]`` and weights ``[B]``.
        """
        if self.mixed == "base":
            rows = share[:, None]
            return rows * targets + (1 - rows) * targets[partner], weights
        base, other = share * weights, (1 - share) * weights[partner]
        total = base + other
        part = torch.where(total > 0, base / total.clamp_min(1e-12), share)[:, None]
        return part * targets + (1 - part) * targets[partner], total


def _of_root_sums(weights: Tensor, labels: Tensor) -> Tensor:
    """Return weights ``[n]`` that sum to √K over the K images of each class; as they are where
    those of a class are all the same, which is no weighting.
    """
    scaled = weights.clone()
    for label in labels.unique():
        mine = labels == label
        if (weights[mine] != weights[mine][0]).any():
            scaled[mine] *= mine.sum().sqrt() / weights[mine].sum()
    return scaled
