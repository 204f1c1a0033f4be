"""What a model's ``scheduler_config.json`` has to say,
so that a noised latent can be denoised by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ddoq.utils.schedulers import SCHEDULERS

#: Also read as a model has them saved, though they are no choices of ``generator.scheduler``.
_ALSO = ("DDIMParallelScheduler", "DDPMParallelScheduler", "KDPM2AncestralDiscreteScheduler")
_PREDICTIONS = ("epsilon", "v_prediction", "sample")
_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace")
_OWN = "replace scheduler_config.json by that of the model's training"


def schedule_problems(
    saved: Mapping[str, Any], conf: Mapping[str, Any], key: str, learns_variance: bool
) -> Iterator[tuple[str, str]]:
    """Yield cause and remedy of what speaks against a model's scheduler.

    Args:
        saved: ``scheduler_config.json``.
        conf: of the generator.
        key: config key of its path.
        learns_variance: whether the network predicts a variance besides.
    """
    name, part = saved.get("_class_name"), key.removesuffix(".path")
    has_betas = any(
        saved.get(which) is not None for which in ("beta_start", "beta_schedule", "trained_betas")
    )
    if str(name).startswith("FlowMatch") or saved.get("use_flow_sigmas"):
        yield (
            f"{key}: its scheduler ({name}) is one of flow matching, "
            "and ddoq knows diffusion with betas only",
            f"use a model that was trained by diffusion; if this one was, {_OWN}",
        )
        return
    if name not in (*SCHEDULERS, *_ALSO) and conf["scheduler"] is None:
        yield (
            f"{key}: its scheduler, {name}, does not start from an intermediate time",
            f"set {part}.scheduler=DDIMScheduler, which takes its betas" if has_betas else _OWN,
        )
        return
    prediction = saved.get("prediction_type", "epsilon")
    betas = saved.get("beta_schedule", "linear")
    if prediction not in _PREDICTIONS:
        yield (
            f"{key}: scheduler_config.json says prediction_type={prediction!r}",
            f"replace it by what the network predicts: {', '.join(_PREDICTIONS)}",
        )
    if betas not in _BETAS:
        yield (
            f"{key}: scheduler_config.json says beta_schedule={betas!r}",
            f"use one of {', '.join(_BETAS)}",
        )
    yield from _beta_problems(saved, key)
    steps = saved.get("num_train_timesteps", 1000)
    if type(steps) is not int or steps <= 0:
        yield (
            f"{key}: scheduler_config.json says num_train_timesteps={steps!r}, no positive number",
            _OWN,
        )
    elif conf["num_steps"] > steps:
        yield (
            f"{part}.num_steps: "
            f"{conf['num_steps']} is more than the {steps} of the model's schedule",
            f"set {part}.num_steps to at most {steps}",
        )
    is_drawn = str(conf["scheduler"] or name).startswith("DDPM")
    if (
        is_drawn
        and not learns_variance
        and saved.get("variance_type") in ("learned", "learned_range")
    ):
        yield (
            f"{key}: its scheduler wants a variance from the network, which predicts none",
            'write "variance_type": "fixed_small" into scheduler_config.json',
        )


def _beta_problems(saved: Mapping[str, Any], key: str) -> Iterator[tuple[str, str]]:
    trained = saved.get("trained_betas")
    start = saved.get("beta_start", 1e-4)
    end = saved.get("beta_end", 0.02)
    if trained is not None:
        if (
            not isinstance(trained, list)
            or not trained
            or not all(_is_beta(beta) for beta in trained)
        ):
            yield (
                f"{key}: trained_betas of scheduler_config.json are no numbers between 0 and 1",
                _OWN,
            )
    elif not (_is_beta(start) and _is_beta(end) and start <= end):
        yield (
            f"{key}: scheduler_config.json says beta_start={start!r} and beta_end={end!r}, "
            "not 0 < start <= end < 1",
            _OWN,
        )


def _is_beta(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and 0 < value < 1
    )
