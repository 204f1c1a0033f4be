"""Features of networks: what they are before their last linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ddoq.labelers.teacher import penultimate

#: Pixels that pass through a network at once: 2,048 images of 32×32; as many as the caches of a
#: CPU hold, 32.
_PIXELS, _PIXELS_OF_CPU = 2**21, 2**15


def num_at_once(images: Tensor) -> int:
    """Return how many of the images ``[n, C, H, W]`` pass through a network at once."""
    pixels = _PIXELS_OF_CPU if images.device.type == "cpu" else _PIXELS
    return max(1, pixels // images[0, 0].numel())


def features(network: nn.Module, images: Tensor) -> Tensor:
    """Return the features ``[n, F]`` of images ``[n, C, H, W]``; differentiable.

    They go through the network in parts, unless it has batch norm and is in training mode: then
    they all have to share one mean and variance.
    """
    part = num_at_once(images)
    if network.training and any(isinstance(module, _BatchNorm) for module in network.modules()):
        part = len(images)
    return torch.cat([penultimate(network, some, "student") for some in images.split(part)])


def class_features(network: nn.Module, images: Tensor) -> Tensor:
    """Return the features of the images of each class ``[num_classes, B, F]``.

    Args:
        network: a classifier.
        images: ``[num_classes, B, C, H, W]``.
    """
    return features(network, images.flatten(0, 1)).unflatten(0, images.shape[:2])


def graph_bytes(network: nn.Module, images: Tensor) -> int:
    """Return the bytes that are held of a pass of images ``[n, C, H, W]`` for the way back."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage._cdata] = storage.nbytes()  # not the address, which meta tensors lack
        return tensor

    weights = {weight.untyped_storage()._cdata for weight in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(images.detach().requires_grad_())
    del output
    return sum(size for place, size in sizes.items() if place not in weights)


def settled(network: nn.Module, images: Tensor) -> nn.Module:
    """Return a network in eval mode, its batch norms with the statistics of ``images``.

    Args:
        network: changed in place.
        images: of all classes, ``[n, C, H, W]``.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over batches, of which there is one
    if norms:
        with torch.no_grad():
            features(network.train(), images)
    return network.eval()
