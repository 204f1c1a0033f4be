"""The memory of guidances: what has been made of a class so far."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Finished:
    """The finished latents of each class, in the order in which they were made."""

    def __init__(self) -> None:
        self._latents: dict[int, dict[int, Tensor]] = {}

    def add(self, labels: Tensor, seeds: Sequence[int], latents: Tensor) -> None:
        """Remember latents ``[B, *shape]``; an image that is made again takes its own place."""
        for label, seed, latent in zip(labels.tolist(), seeds, latents, strict=True):
            self._latents.setdefault(label, {})[seed] = latent

    def of(self, labels: Tensor, seeds: Sequence[int], like: Tensor) -> Tensor:
        """Return what every image finds when it begins, ``[B, n, *shape]``.

        An image that did not fit into memory the first time does not find itself.

        Args:
            labels: of the images, one of each class, ``[B]``.
            seeds: of the images.
            like: latents ``[B, *shape]``.
        """
        rows = []
        for label, seed in zip(labels.tolist(), seeds, strict=True):
            others = self._latents.get(label, {})
            before = [latent for other, latent in others.items() if other != seed]
            rows.append(torch.stack(before) if before else like.new_empty(0, *like.shape[1:]))
        return torch.stack(rows)
