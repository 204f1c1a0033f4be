"""Networks that methods train on the way, with all their state in buffers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddoq.distillers.features import num_at_once
from ddoq.utils.seeding import item_generator

_RATE, _MOMENTUM, _DECAY = 0.01, 0.9, 5e-4  # those of IDM's code
BATCH = 256


class Apprentice(nn.Module):
    """A network that is trained on real images between steps, all its state in buffers.

    Args:
        network: fresh; frozen but for its training.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        sizes = [weight.numel() for weight in network.parameters()]
        self.register_buffer("velocity", torch.zeros(sum(sizes)))
        self.register_buffer("num_right", torch.tensor(0))
        self.register_buffer("num_seen", torch.tensor(0))
        self.to(next(network.parameters()).device)

    @property
    def percent_right(self) -> Tensor:
        """The accuracy in percent on the images that trained it, before they did; 0 without any."""
        return 100 * self.num_right / self.num_seen.clamp(min=1)

    def restart(self, network: nn.Module) -> None:
        """Become another one, which is fresh."""
        self.network.load_state_dict(network.state_dict())
        for state in (self.velocity, self.num_right, self.num_seen):
            state.zero_()

    def learn(self, images: Tensor, labels: Tensor) -> None:
        """Make a step of SGD with momentum and weight decay."""
        self.network.train().requires_grad_()
        weights = list(self.network.parameters())
        logits = self.network(images)
        gradients = torch.autograd.grad(cross_entropy(logits, labels), weights)
        self.network.requires_grad_(False)
        flat = nn.utils.parameters_to_vector(weights)
        slope = nn.utils.parameters_to_vector(gradients) + _DECAY * flat
        self.velocity.mul_(_MOMENTUM).add_(slope)
        nn.utils.vector_to_parameters(flat - _RATE * self.velocity, weights)
        self.num_right += (logits.argmax(1) == labels).sum()
        self.num_seen += len(labels)

    def study(self, images: Tensor, labels: Tensor, *seed: object) -> None:
        """Learn from all of them once, in an order that is drawn.

        Args:
            images: ``[n, C, H, W]`` as networks see them.
            labels: ``[n]``.
            seed: of the order.
        """
        order = torch.randperm(len(images), generator=item_generator(*seed)).to(images.device)
        for rows in order.split(BATCH):
            self.learn(images[rows], labels[rows])

    @torch.no_grad()
    def losses(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of each image, ``[n]``."""
        size = num_at_once(images)
        parts = zip(images.split(size), labels.split(size), strict=True)
        self.network.eval()
        return torch.cat([cross_entropy(self.network(a), b, reduction="none") for a, b in parts])
