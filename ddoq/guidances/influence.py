"""What an image would teach a network, beside what the real images of its class do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

_CLASSES_KEPT = 16  # whose targets are remembered


def loss_gradient(
    network: nn.Module, images: Tensor, label: int, differentiable: bool = False
) -> Tensor:
    """Return the gradient of the mean cross entropy with respect to all weights, ``[P]``.

    Args:
        network: maps images ``[B, C, H, W]`` to logits; its weights require gradients.
        images: of one class.
        label: that class.
        differentiable: keep the graph, so that the gradient can be differentiated.
    """
    labels = torch.full((len(images),), label, device=images.device)
    loss = cross_entropy(network(images), labels)
    parts = torch.autograd.grad(loss, list(network.parameters()), create_graph=differentiable)
    return torch.cat([part.flatten() for part in parts])


def class_gradient(network: nn.Module, images: Tensor, label: int, batch_size: int = 50) -> Tensor:
    """Return ``loss_gradient`` of many images of a class, in batches, ``[P]``."""
    parts = images.split(batch_size)
    with torch.enable_grad():
        gradients = [len(part) * loss_gradient(network, part, label) for part in parts]
    return sum(gradients) / len(images)


class Surrogates(nn.Module):
    """Networks at several points of a training, and the gradients of real images there.

    Args:
        networks: each maps images ``[B, C, H, W]`` in [-1, 1] to logits.
        real: returns real images of a class, in [-1, 1].
    """

    def __init__(self, networks: Sequence[nn.Module], real: Callable[[int], Tensor]):
        super().__init__()
        self.networks, self.real = nn.ModuleList(networks).eval().requires_grad_(True), real
        self.targets = lru_cache(_CLASSES_KEPT)(self._targets)

    def _targets(self, label: int) -> list[Tensor]:
        """Return the gradient of the real images of a class at each network, ``[P]``."""
        device = next(self.networks.parameters()).device
        images = self.real(label).to(device)
        return [class_gradient(network, images, label) for network in self.networks]

    def misfit(self, images: Tensor, labels: Sequence[int]) -> Tensor:
        """Return the sum over networks of one minus the cosine between the gradient of an image and
        that of real images of its class, ``[B]``; differentiable.

        Args:
            images: ``[B, C, H, W]`` in [-1, 1].
            labels: of the images.
        """
        totals = []
        for image, label in zip(images.split(1), labels, strict=True):
            cosines = [
                cosine_similarity(loss_gradient(network, image, label, True), target, dim=0)
                for network, target in zip(self.networks, self.targets(label), strict=True)
            ]
            totals.append(len(cosines) - torch.stack(cosines).sum())
        return torch.stack(totals)
