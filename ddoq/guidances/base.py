"""The interface of a guidance, and what it is told at every step of the reverse process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ddoq.options import Share, check_options
from ddoq.utils.seeding import item_generator

#: Maps the embedded classes of a batch ``[B or 2B, width]``, those of the null class behind, and
#: the table of embeddings ``[classes + 1, width]`` to what the network gets in their place.
Embedding = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Cells:
    """What a class was quantized to.

    Attributes:
        points: ``[K, *shape]``.
        masses: of their Voronoi cells ``[K]``, sum 1.
    """

    points: Tensor
    masses: Tensor


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where the reverse process of a batch is, before the network has seen it.

    Attributes:
        number: steps that are left after this one: 49 to 0 of 50, as the sources count them.
        time: of the schedule, from ``num_times - 1`` down to 0.
        num_times: of the whole schedule.
        labels: class of each image ``[B]``.
        seeds: of each image.
        conditions: what the network is conditioned on, a row per image: a DiT's class numbers.
        kept: see ``once``.
    """

    number: int
    time: int
    num_times: int
    labels: Tensor
    seeds: Sequence[int]
    conditions: Tensor
    kept: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def share(self) -> float:
        """The time as a share of the schedule's."""
        return self.time / self.num_times

    def generators(self, *parts: object) -> list[torch.Generator]:
        """Return a generator per image, seeded by it and ``parts``: what is drawn does not depend
        on the batch. Name the step among the parts, and other steps draw anew.
        """
        return [item_generator(seed, *parts) for seed in self.seeds]

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what ``make`` made at the first step of this batch that asked for it."""
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]


@dataclass(frozen=True, kw_only=True)
class Step(Moment):
    """A step of the reverse process of a batch, once the network has predicted.

    Tensors are ``[B, C, H, W]``, float32, unless said otherwise. With signal power ``alpha``,
    ``sample = sqrt(alpha) * clean + sqrt(1 - alpha) * noise``.

    Attributes:
        sample: x_t, where the step starts.
        alpha: the cumulative product of the schedule at this time.
        next_alpha: that of the next time, 1 at the last step.
        conditional: noise predicted with the class.
        unconditional: noise predicted without; ``None`` where the guidance scale is 1.
        noise: predicted noise after classifier-free guidance.
        clean: the clean latent that ``noise`` stands for.
        points: the quantized point of each image.
        cells: all points of the image's class, an entry per image; empty where there are none.
        memory: finished latents of the image's class ``[B, n, C, H, W]``, in the order in which
            they were made; n is 0 unless the guidance declares ``memory``.
        decode: maps latents to images in [-1, 1], not clamped; differentiable.
    """

    sample: Tensor
    alpha: float
    next_alpha: float
    conditional: Tensor
    unconditional: Tensor | None
    noise: Tensor
    clean: Tensor
    points: Tensor
    cells: Sequence[Cells]
    memory: Tensor
    decode: Callable[[Tensor], Tensor]

    @property
    def sigma(self) -> float:
        """Standard deviation of DDPM's posterior between the two times."""
        return (
            (1 - self.next_alpha) / (1 - self.alpha) * (1 - self.alpha / self.next_alpha)
        ) ** 0.5

    @cached_property
    def mean(self) -> Tensor:
        """The mean of DDPM's posterior (Ho et al. 2020, equation 7)."""
        kept = self.alpha / self.next_alpha
        to_clean = self.next_alpha**0.5 * (1 - kept) / (1 - self.alpha)
        to_sample = kept**0.5 * (1 - self.next_alpha) / (1 - self.alpha)
        return to_clean * self.clean + to_sample * self.sample

    def gradient(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the gradient of a function of ``clean`` with respect to ``sample``.

        The predicted noise is held constant, as all sources do, so that the network is not passed:
        the gradient at the clean latent over ``sqrt(alpha)``.

        Args:
            function: maps clean latents to values, whose sum is differentiated.
        """
        with torch.enable_grad():
            clean = self.clean.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(function(clean).sum(), clean)
        return gradient / self.alpha**0.5


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What a guidance adds at a step; ``None``: nothing. Each ``[B, C, H, W]``.

    Attributes:
        conditional: to the noise predicted with the class, before classifier-free guidance
            multiplies it.
        noise: to the predicted noise after that.
        clean: to the clean latent; the noise follows.
        mean: to the next sample, that is to the mean that a scheduler with noise draws it from.
    """

    conditional: Tensor | None = None
    noise: Tensor | None = None
    clean: Tensor | None = None
    mean: Tensor | None = None

    def __add__(self, other: Shift) -> Shift:
        return Shift(
            **{
                part.name: _sum(getattr(self, part.name), getattr(other, part.name))
                for part in fields(Shift)
            }
        )


def unit(vectors: Tensor) -> Tensor:
    """Return the vector of each image ``[B, ...]`` at length 1; that of nothing stays nothing."""
    return normalize(vectors.flatten(1)).view_as(vectors)


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


@dataclass(kw_only=True)
class Guidance:
    """Steers the reverse process. Several at once see the same step, and what they add is added up.

    Class attributes say how the work has to be arranged: ``uses_gradient``: of ``Step.gradient``;
    ``uses_memory``: the images of a class are made one after another, classes side by side;
    ``uses_decoder``: ``Step.decode`` is differentiated. What else one needs are fields marked
    ``Given``: ``teacher``, ``latents`` or ``surrogates``.
    """

    uses_gradient: ClassVar[bool] = False
    uses_memory: ClassVar[bool] = False
    uses_decoder: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_options(self, "guidance")

    @property
    def replaces_embedding(self) -> bool:
        """Whether ``embed`` does anything."""
        return False

    def acts(self, moment: Moment) -> bool:
        """Tell whether it does anything at a moment."""
        return True

    def embed(self, moment: Moment) -> Embedding | None:
        """Return what replaces the embedded class at this step; only where a DiT has one."""
        return None

    def shift(self, step: Step) -> Shift:
        """Return what is added at a step at which the guidance acts."""
        return Shift()

    def networks(self) -> nn.Module:
        """Return everything that has to be on the device; nothing by default."""
        return nn.Identity()


@dataclass(kw_only=True)
class Windowed(Guidance):
    """A guidance that acts at some times only.

    The window is a share of the schedule's time, so that other numbers of steps act at the same
    noise. The sources count the steps of 50 downwards: theirs from 30 to 45 are ``low`` 0.6 and
    ``high`` 0.92, whichever of diffusers' spacings the schedule has.

    Args:
        low: guided while the time is at least this share of the schedule's.
        high: guided while it is below this share.
    """

    low: Share = 0.0
    high: Share = 1.0

    def acts(self, moment: Moment) -> bool:
        """Tell whether the time is in the window."""
        return self.low <= moment.share < self.high
