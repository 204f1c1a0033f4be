"""How a pretrained VAE's latents are brought to unit variance,
as its ``config.json`` says and its pipelines do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ddoq.errors import DataError

#: The classes of diffusers that ddoq reads,
#: with the scaling factor that stands for one that is not stated.
VAE_SCALES = {"AutoencoderKL": 0.18215, "AutoencoderTiny": 1.0}
_REMEDY = "replace it by the model's own"


@dataclass(frozen=True)
class LatentScale:
    """``z = (E(x) - shift) * scale`` and ``x = D(z / scale + shift)``;
    each is a number, or a tuple of one per channel.

    Attributes:
        shift: ``shift_factor``, or ``latents_mean``.
        scale: ``scaling_factor``, or ``scaling_factor / latents_std``.
        assumed: the scaling factor is not stated, and its class's stands for it.
    """

    shift: float | tuple[float, ...]
    scale: float | tuple[float, ...]
    assumed: bool = False


def latent_scale(vae_config: Mapping[str, Any], key: str) -> LatentScale:
    """Return what a VAE's configuration says of its latents.

    A model with ``latents_mean`` and ``latents_std`` is scaled as in Stable Diffusion XL's
    pipelines, ``(E(x) - mean) * scaling_factor / std``; one with a ``shift_factor`` as in
    Stable Diffusion 3's.

    Args:
        vae_config: ``config.json`` of the VAE.
        key: config key that errors name.

    Raises:
        DataError: a number is none, is zero where it divides,
            or there are too few or contradictory ones.
    """
    default = VAE_SCALES[vae_config.get("_class_name")]
    factor = _positive(vae_config, "scaling_factor", vae_config.get("scaling_factor", default), key)
    assumed = "scaling_factor" not in vae_config
    shift = vae_config.get("shift_factor")
    shift = 0.0 if shift is None else _finite(vae_config, "shift_factor", shift, key)
    names = [name for name in ("latents_mean", "latents_std") if vae_config.get(name) is not None]
    if not names:
        return LatentScale(shift, factor, assumed)
    if len(names) == 1 or shift:
        which = (
            "shift_factor beside latents_mean"
            if shift
            else f"{names[0]} without the other of the two"
        )
        raise DataError(
            f"{key}: config.json of the encoder has {which}, "
            "and no pipeline of diffusers reads that",
            "keep those that the model was trained with: scaling_factor and shift_factor, "
            "or scaling_factor, latents_mean and latents_std",
        )
    mean, std = (_per_channel(vae_config, name, key) for name in names)
    mean = tuple(_finite(vae_config, "latents_mean", value, key) for value in mean)
    return LatentScale(
        mean,
        tuple(factor / _positive(vae_config, "latents_std", value, key) for value in std),
        assumed,
    )


def is_normalised(vae_config: Mapping[str, Any]) -> bool:
    """Tell whether a VAE's latents are scaled channel by channel."""
    return vae_config.get("latents_mean") is not None or vae_config.get("latents_std") is not None


def _per_channel(vae_config: Mapping[str, Any], name: str, key: str) -> list[Any]:
    values, channels = vae_config[name], vae_config.get("latent_channels")
    if not isinstance(values, list | tuple) or len(values) != channels:
        num = len(values) if isinstance(values, list | tuple) else "no"
        raise DataError(
            f"{key}: config.json of the encoder has {num} numbers in {name}, "
            f"and latent_channels={channels}",
            _REMEDY,
        )
    return list(values)


def _finite(vae_config: Mapping[str, Any], name: str, value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(
            f"{key}: config.json of the encoder says {name}={vae_config.get(name)!r}, "
            "which is no finite number",
            _REMEDY,
        )
    return float(value)


def _positive(vae_config: Mapping[str, Any], name: str, value: Any, key: str) -> float:
    if _finite(vae_config, name, value, key) <= 0:
        raise DataError(
            f"{key}: config.json of the encoder says {name}={vae_config.get(name)!r}, "
            "and latents cannot be scaled by that",
            _REMEDY,
        )
    return float(value)
