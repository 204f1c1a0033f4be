"""Which draw of each class: near its training images, and far from the other classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ddoq.options import NotNegativeFloat, PositiveInt
from ddoq.selections.base import Candidates, Choice, InFeatures, Real

_CLOSEST = 1e-12  # of two means: the logarithm of no distance at all would be infinite


@dataclass(kw_only=True)
class S3(InFeatures):
    """S³ of IMS³ (2026): one whole draw per class, by its mean in features of norm 1.

    With ``d = 1 - cos`` of normalised means, ``c`` of a class's draw and ``r`` of its training
    images, it maximises ``sum_c -alpha log d(c, r_c) + beta sum_{c < c'} log d(c, c')``, class
    by class, beginning with the draws nearest to the training images. All of these make ``r``; the
    source takes 200. Each point has one image, so that masses stay those of the points.

    Args:
        alpha: of being near the training images of the class.
        beta: of being far from other classes.
        num_rounds: through all classes, at most; it ends where a round changes nothing.
    """

    alpha: NotNegativeFloat = 0.4
    beta: NotNegativeFloat = 0.9
    num_rounds: PositiveInt = 5

    def choose(self, candidates: Candidates, real: Real, seed: int) -> Choice:
        """See ``Selection.choose``; facts: ``objectives``, at the start and after each round."""
        classes = candidates.labels.unique().tolist()
        of_classes = [candidates.rows(label) for label in classes]
        draws = torch.stack([_means(candidates.outputs.features[rows]) for rows in of_classes])
        targets = torch.stack([_means(real(label).features) for label in classes])
        chosen, objectives = self.ascend(draws, targets)
        rows = [rows[draw] for rows, draw in zip(of_classes, chosen.tolist(), strict=True)]
        return Choice(torch.cat(rows), {"objectives": objectives})

    def ascend(self, draws: Tensor, targets: Tensor) -> tuple[Tensor, list[float]]:
        """Return the draw of each class, int64 ``[C]``, and the objective at the start and after
        each round, which never falls.

        Args:
            draws: mean features of each class's draws, ``[C, num_draws, F]`` of norm 1.
            targets: those of its training images, ``[C, F]``.
        """
        near = self.alpha * -_log_distances(draws, targets[:, None])[..., 0]
        chosen, classes = near.argmax(1), torch.arange(len(draws))
        means = draws[classes, chosen]
        objectives = [self._objective(means, near[classes, chosen])]
        for _ in range(self.num_rounds):
            before = chosen.clone()
            for c in classes.tolist():
                apart = _log_distances(draws[c], means)
                apart[:, c] = 0  # from itself
                gains = near[c] + self.beta * apart.sum(1)
                if gains.max() > gains[chosen[c]]:
                    chosen[c] = gains.argmax()
                    means[c] = draws[c, chosen[c]]
            if torch.equal(chosen, before):
                break
            objectives.append(self._objective(means, near[classes, chosen]))
        return chosen, objectives

    def _objective(self, means: Tensor, near: Tensor) -> float:
        apart = _log_distances(means, means).triu(1).sum()
        return (near.sum() + self.beta * apart).item()


def _means(features: Tensor) -> Tensor:
    """Return the normalised means of normalised features, ``[..., n, F]`` to ``[..., F]``."""
    return normalize(normalize(features.double(), dim=-1).mean(-2), dim=-1)


def _log_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return ``log(1 - cos)`` ``[..., n, m]`` of normalised ``[..., n, F]`` and ``[..., m, F]``."""
    return (1 - a @ b.mT).clamp_min(_CLOSEST).log()
