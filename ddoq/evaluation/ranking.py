"""The scores of DD-Ranking (Li et al. 2025, arXiv:2505.13300), from accuracies as fractions.

They separate what the images are worth from what soft labels and augmentation are worth. The
formulas are those of the paper. The authors' package (0.2.0) puts percentages into the exponential
and takes each student's best epoch on the test set: what it prints is on another scale.
"""

from __future__ import annotations

import math

from ddoq.errors import ConfigError


def hard_label_recovery(real_hard: float, synthetic_hard: float) -> float:
    """Return HLR: what students with hard labels lose by the synthetic images.
    In [-1, 1]; lower is better.

    Args:
        real_hard: accuracy of students of the full real data.
        synthetic_hard: accuracy of students of the synthetic images.

    Raises:
        ConfigError: an accuracy is no fraction.
    """
    _check(0, real_hard=real_hard, synthetic_hard=synthetic_hard)
    return real_hard - synthetic_hard


def improvement_over_random(synthetic: float, random: float) -> float:
    """Return IOR: what the synthetic images gain over as many random real ones.
    In [-1, 1]; higher is better.

    Args:
        synthetic: accuracy of students of the synthetic images, by any protocol.
        random: accuracy of students of the random images, by the same protocol.

    Raises:
        ConfigError: an accuracy is no fraction.
    """
    _check(0, synthetic=synthetic, random=random)
    return synthetic - random


def label_robust_score(ior: float, hlr: float, weight: float = 0.5) -> float:
    """Return LRS: ``(e^a - e^-1) / (e - e^-1)`` with ``a = weight IOR - (1 - weight) HLR``.

    In [0, 1]; higher is better. No gain and no loss, a = 0, is 0.269.

    Raises:
        ConfigError: ``ior`` or ``hlr`` is outside [-1, 1], or ``weight`` outside [0, 1].
    """
    _check(-1, ior=ior, hlr=hlr)
    _check(0, weight=weight)
    return _normalized(weight * ior - (1 - weight) * hlr)


def augmentation_robust_score(
    synthetic_aug: float,
    random_aug: float,
    synthetic_plain: float,
    random_plain: float,
    weight: float = 0.5,
) -> float:
    """Return ARS: the score of LRS for ``a = weight IOR_aug + (1 - weight) IOR_plain``.
    In [0, 1]; higher is better.

    Args:
        synthetic_aug: accuracy of students of the synthetic images,
            with the protocol's augmentation.
        random_aug: of as many random real images, with the same.
        synthetic_plain: of the synthetic images, without augmentation.
        random_plain: of the random images, without augmentation.
        weight: of the gain with augmentation.

    Raises:
        ConfigError: an accuracy is no fraction, or ``weight`` is outside [0, 1].
    """
    _check(0, weight=weight)
    with_augmentation = improvement_over_random(synthetic_aug, random_aug)
    return _normalized(
        weight * with_augmentation
        + (1 - weight) * improvement_over_random(synthetic_plain, random_plain)
    )


def _normalized(gain: float) -> float:
    return (math.exp(gain) - math.exp(-1)) / (math.e - math.exp(-1))


def _check(low: int, **values: float) -> None:
    for name, value in values.items():
        if not low <= value <= 1:  # also refuses NaN
            raise ConfigError(
                f"ranking.{name}: {value} is outside [{low}, 1]", "give fractions, not percentages"
            )
