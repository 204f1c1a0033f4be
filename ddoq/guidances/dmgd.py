"""Distribution matching and semantic matching."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from ddoq.guidances.base import Embedding, Moment, Shift, Step, Windowed
from ddoq.guidances.transport import transport_cost
from ddoq.options import NotNegativeFloat, PositiveFloat, PositiveInt, Share

#: Shares of the schedule's time: the class is noise alone above the first, itself below the other.
_ONLY_NOISE, _NO_NOISE = 0.9, 0.5


@dataclass(kw_only=True)
class DMGD(Windowed):
    """The images of a class are transported to its points, whose masses are the marginal.

    DMGD (CVPR 2026), from its released code. **Distribution matching**: with S the class's finished
    latents and the predicted clean one, all scaled to norm 1 like the points, and C their Euclidean
    distances, five rounds of Sinkhorn's iteration make a plan P of ``exp(-C / 0.1)``, rows to equal
    masses, columns to those of the cells. The next sample is moved by
    ``-scale * sigma * gradient of sum(P C)``, differentiated through the rounds, with respect to
    the sample. Sigma is the standard deviation: the code's comment says variance, the code does
    not. It is little: of a sample of 4,096 coordinates and length 64, a step at strength 0.5 moves
    0.012 to 0.001, for everything has norm 1 before it is differentiated. The code clusters
    posterior samples, half of them mirrored, without the last incomplete batch, into ten cells;
    here the points are those of the arm's quantizer, as many as there are images. **Semantic
    matching**: the embedded class starts as noise, see ``embed``.

    Args:
        low, high: the transport acts between these shares of the schedule's time.
        scale: strength of the transport, rho. The code's default; its README has 0.05 for
            ImageNette, the paper 0.05 to 0.5.
        masses: the marginal is the masses of the cells; otherwise all points weigh the same.
        epsilon: of the entropy, in units of distance.
        rounds: of Sinkhorn's iteration.
        semantic: mix noise into the embedded class while the time is above half; only for a DiT.
        semantic_noise: weight of the noise. Its README finds 0.01 better for few images.
        semantic_other: weight of the embedding of another class.
    """

    uses_gradient: ClassVar[bool] = True
    uses_memory: ClassVar[bool] = True

    low: Share = 0.6
    high: Share = 0.92
    scale: NotNegativeFloat = 0.5
    masses: bool = True
    epsilon: PositiveFloat = 0.1
    rounds: PositiveInt = 5
    semantic: bool = True
    semantic_noise: NotNegativeFloat = 0.06
    semantic_other: NotNegativeFloat = 0.01

    @property
    def replaces_embedding(self) -> bool:
        """Whether there is semantic matching."""
        return self.semantic

    def acts(self, moment: Moment) -> bool:
        """Tell whether either part does anything."""
        return super().acts(moment) or (self.semantic and moment.share >= _NO_NOISE)

    def shift(self, step: Step) -> Shift:
        """Move the next sample along the transport's gradient."""
        if not super().acts(step):
            return Shift()
        points = _directions(pad_sequence([own.points for own in step.cells], batch_first=True))
        masses = pad_sequence([self._masses(own.masses) for own in step.cells], batch_first=True)

        def cost(clean: Tensor) -> Tensor:
            images = _directions(torch.cat([step.memory, clean.unsqueeze(1)], 1))
            distances = torch.cdist(images, points, compute_mode="donot_use_mm_for_euclid_dist")
            return transport_cost(distances, masses, self.epsilon, self.rounds)

        return Shift(mean=-self.scale * step.sigma * step.gradient(cost))

    def _masses(self, masses: Tensor) -> Tensor:
        return masses if self.masses else torch.full_like(masses, 1 / len(masses))

    def embed(self, moment: Moment) -> Embedding | None:
        """Return what mixes noise u and another class y' into an embedded class y:
        ``sqrt(k) y + noise sqrt(1 - k) u + other sqrt(1 - k) y'``.

        k is 0 above 0.9 of the schedule's time, where y' has no part either, and goes linearly to 1
        at 0.5. Mean and standard deviation, of an image's class and null class together, are then
        set to those of y. The noise is uniform on [0, 1), not centred, as in the code, which draws
        both at every step, for the null class as well.
        """
        if not self.semantic or moment.share < _NO_NOISE:
            return None
        kept = max(0.0, (_ONLY_NOISE - moment.share) / (_ONLY_NOISE - _NO_NOISE))
        other = self.semantic_other if moment.share <= _ONLY_NOISE else 0.0
        num = len(moment.labels)

        @cache  # every block of a network embeds the class by itself
        def draws(halves: int, width: int) -> tuple[Tensor, Tensor]:
            generators = moment.generators("semantic", moment.number)
            uniform = [torch.rand(halves, width + 1, generator=g) for g in generators]
            both = torch.stack(uniform, 1).to(moment.labels.device)
            return both[..., :-1], both[..., -1]

        def mixed(embedded: Tensor, table: Tensor) -> Tensor:
            """Return the mixture, of the shape and type of what was embedded."""
            width, num_classes = embedded.shape[1], len(table) - 1
            own = embedded.float().view(-1, num, width)
            noise, place = draws(len(own), width)
            steps = (place[0] * (num_classes - 1)).long() + 1
            others = [(moment.conditions + steps) % num_classes]
            others += [(row * num_classes).long() for row in place[1:]]  # of the null class: any
            foreign = table[torch.stack(others)].float()
            less = (1 - kept) ** 0.5
            mixture = kept**0.5 * own + less * (self.semantic_noise * noise + other * foreign)
            return _with_moments_of(mixture, own).view_as(embedded).to(embedded.dtype)

        return mixed


def _directions(latents: Tensor) -> Tensor:
    """Return latents ``[B, n, *shape]`` as vectors of norm 1, ``[B, n, d]``."""
    return normalize(latents.flatten(2), dim=2)


def _with_moments_of(values: Tensor, wanted: Tensor) -> Tensor:
    """Return values ``[halves, B, width]`` with the mean and the standard deviation per image of
    ``wanted``.
    """
    std, mean = torch.std_mean(values, (0, 2), keepdim=True)
    wanted_std, wanted_mean = torch.std_mean(wanted, (0, 2), keepdim=True)
    return (values - mean) / std.clamp_min(1e-12) * wanted_std + wanted_mean
