"""Optimal transport of finished latents to what they are to stand for."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = 1e-30  # a mass that a column of nothing is divided by


def sinkhorn(cost: Tensor, rows: Tensor, columns: Tensor, epsilon: float, rounds: int) -> Tensor:
    """Return the plan after some rounds of Sinkhorn's iteration, ``[B, N, K]``; differentiable.

    Each round scales the rows, then the columns, of ``exp(-cost / epsilon)``: after the last one
    the columns have their masses exactly, the rows nearly.

    Args:
        cost: ``[B, N, K]``.
        rows: masses ``[B, N]``.
        columns: masses ``[B, K]``; those of mass zero take no part.
        epsilon: of the entropy, in units of the cost.
        rounds: of the iteration.
    """
    plan = torch.exp(-cost / epsilon) * (columns > 0).unsqueeze(1)
    for _ in range(rounds):
        plan = plan * (rows / plan.sum(2).clamp_min(_SMALLEST)).unsqueeze(2)
        plan = plan * (columns / plan.sum(1).clamp_min(_SMALLEST)).unsqueeze(1)
    return plan


def transport_cost(cost: Tensor, columns: Tensor, epsilon: float, rounds: int) -> Tensor:
    """Return what ``sinkhorn``'s plan from equal rows costs, ``[B]``; see there."""
    rows = torch.full_like(cost[:, :, 0], 1 / cost.shape[1])
    return (sinkhorn(cost, rows, columns, epsilon, rounds) * cost).sum((1, 2))
