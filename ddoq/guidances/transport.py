"""Optimal transport of finished latents to what they are to stand for."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = 1e-30  # what stands for a mass of nothing
_NOWHERE = -1e4  # logarithm of what there is in a column of mass zero


def sinkhorn(cost: Tensor, rows: Tensor, columns: Tensor, epsilon: float, rounds: int) -> Tensor:
    """Return the plan after some rounds of Sinkhorn's iteration, ``[B, N, K]``; differentiable.

    Each round scales the rows, then the columns, of ``exp(-cost / epsilon)``: after the last one
    the columns have their masses exactly, the rows nearly. In logarithms, so that costs of any size
    leave numbers.

    Args:
        cost: ``[B, N, K]``.
        rows: masses ``[B, N]``.
        columns: masses ``[B, K]``; those of mass zero take no part.
        epsilon: of the entropy, in units of the cost.
        rounds: of the iteration.
    """
    plan = (-cost / epsilon).masked_fill((columns == 0).unsqueeze(1), _NOWHERE)
    log_rows, log_columns = (masses.clamp_min(_SMALLEST).log() for masses in (rows, columns))
    for _ in range(rounds):
        plan = plan + (log_rows - plan.logsumexp(2)).unsqueeze(2)
        plan = plan + (log_columns - plan.logsumexp(1)).unsqueeze(1)
    return plan.exp()


def transport_cost(cost: Tensor, columns: Tensor, epsilon: float, rounds: int) -> Tensor:
    """Return what ``sinkhorn``'s plan from equal rows costs, ``[B]``; see there."""
    rows = torch.full_like(cost[:, :, 0], 1 / cost.shape[1])
    return (sinkhorn(cost, rows, columns, epsilon, rounds) * cost).sum((1, 2))
