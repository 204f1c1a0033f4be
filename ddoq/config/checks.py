"""What the types cannot say: ranges, known choices, combinations.

All problems are reported at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from string import Formatter
from typing import Any

from ddoq.config import methods, protocols
from ddoq.config.arms import is_method
from ddoq.config.form import check_form, complain
from ddoq.config.parts import components
from ddoq.config.schema import COMPONENTS, WaveResourcesConf
from ddoq.errors import ConfigError, DataError, did_you_mean
from ddoq.pipeline.stages import STAGES, reaches

_ALLOCATIONS = ("equal", "error")
_PRECISIONS = ("float32", "bfloat16", "float16")

#: Schedulers of diffusers that start from an intermediate time and take every kind of prediction.
SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
_CHOICES = {
    "dataset.class_order": ("text", "number"),
    "dataset.on_bad_image": ("error", "skip"),
    "dataset.on_leak": ("keep", "skip", "error"),
    "dataset.resize": ("crop", "squash"),
    "dataset.source": ("original", "fastai"),
    "dataset.classes": ("imagenet1k", "imagenette", "imagewoof", "imagenet100", "imageidc"),
    "quantizer.start": ("auto", "ward", "greedy_kmeans++", "kmeans++", "random"),
    "quantizer.search": ("auto", "exchange", "lloyd"),
    "quantizer.leftover": ("released", "flush"),
    "quantizer.covariance_type": ("diag", "spherical", "tied", "full"),
    "space.representative": ("mean", "nearest"),
    "split": ("test", "validation"),
    "on_small_class": ("error", "duplicate"),
    "logger.mode": ("none", "csv", "tensorboard", "online", "offline"),
    "trainer.accelerator": ("auto", "cpu", "gpu", "mps"),
    "encoder.posterior": ("mode", "sample"),
    "encoder.precision": _PRECISIONS,
    "encoder.storage": ("float32", "float16"),
    "generator.precision": _PRECISIONS,
    "generator.scheduler": SCHEDULERS,
    "generator.start": ("noised", "noise", "inversion"),
    "generator.classes": ("dataset", "imagenet"),
    "generator.fit.prediction_type": ("v_prediction", "epsilon", "sample"),
    "generator.fit.beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
}
_POSITIVE = (
    "ipc",
    "dataset.image_size",
    "dataset.train_per_class",
    "trainer.batch_size",
    "trainer.join_timeout",
    "ablation.num_seeds",
    "generator.num_steps",
    "generator.fit.num_steps",
    "generator.fit.batch_size",
    "generator.fit.num_layers",
    "generator.fit.num_heads",
    "generator.fit.head_dim",
    "generator.fit.patch_size",
    "generator.guidance_channels",
    "encoder.fit.latent_channels",
    "encoder.fit.num_steps",
    "encoder.fit.batch_size",
    "quantizer.num_restarts",
    "quantizer.km_expand",
    "quantizer.max_iterations",
    "quantizer.num_iterations",
    "quantizer.num_components",
    "quantizer.num_passes",
    "quantizer.batch_size",
    "space.num_components",
    "space.image_size",
    "generator.fit.learning_rate",
    "encoder.fit.learning_rate",
    "weighting.high",
)
_NOT_NEGATIVE = (
    "seed",
    "dataset.split_seed",
    "trainer.num_workers",
    "generator.fit.seed",
    "encoder.fit.seed",
    "encoder.fit.kl_weight",
    "weighting.exponent",
)
_FRACTIONS = (
    "dataset.validation_fraction",
    "dataset.test_fraction",
    "weighting.amount",
    "generator.fit.label_dropout",
    "generator.fit.ema_decay",
)
_MOST_PATCH = 64  # that an error suggests
_MOST_SEEDS = 100  # so many belong to one ``seed``, see ``ddoq.stages.graph.Experiment``


def check(config: Mapping[str, Any]) -> None:
    """Raise ConfigError for the problems of a resolved configuration;
    every problem is named, those of form first.
    """
    check_form(config)
    complain(_problems(config))


def _values(config: Mapping[str, Any], key: str) -> Iterator[tuple[str, Any]]:
    """Yield every value of a dotted key with its own key:
    ``quantizer.start`` is one of every arm's quantizer, too.
    """
    group, _, rest = key.partition(".")
    places = (
        [(path, part) for path, kind, part in components(config) if kind == group]
        if group in COMPONENTS
        else []
    )
    for path, part in places or [(group, config[group])]:
        value = _get(part, rest) if rest else part
        if value is not None:
            yield f"{path}.{rest}" if rest else path, value


def _problems(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, choices in (_CHOICES | protocols.CHOICES | methods.CHOICES).items():
        for path, value in _values(config, key):
            if value not in choices:
                yield f"{path}: '{value}' is not known", did_you_mean(str(value), choices)
    for key in _POSITIVE + protocols.POSITIVE + methods.POSITIVE:
        for path, value in _values(config, key):
            if value <= 0:
                yield f"{path}: {value} is not positive", f"set {path} to 1 or more"
    for key in _NOT_NEGATIVE + protocols.NOT_NEGATIVE:
        for path, value in _values(config, key):
            if value < 0:
                yield f"{path}: {value} is negative", f"set {path} to 0 or more"
    for key in _FRACTIONS + protocols.FRACTIONS + methods.FRACTIONS:
        for path, value in _values(config, key):
            if not 0 <= value < 1:
                yield f"{path}: {value} is outside [0, 1)", f"set {path} to a fraction"
    for key in ("protocol.num_seeds", "ablation.num_seeds"):
        for path, value in _values(config, key):
            if value > _MOST_SEEDS:
                yield (
                    f"{path}: {value} is more than {_MOST_SEEDS}",
                    "make several runs with other values of seed",
                )
    processes = config["trainer"]["processes"]
    if processes != "auto" and (type(processes) is not int or processes < 1):
        cause = f"trainer.processes: {processes} is neither auto nor a number"
        yield cause, "set trainer.processes=auto, or to 1 or more"
    yield from _allocation(config)
    yield from _methods(config)
    yield from _stages(config)
    yield from _combinations(config)


def _methods(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the rules of methods leave undecided, or ask for in vain."""
    for path, group, method in components(config):
        if group == "method":
            ipc, dataset = config["ipc"], config["dataset"]["name"]
            try:
                methods.resolved(method, ipc=ipc, dataset=dataset, path=path)
            except ConfigError as error:
                yield error.cause, error.remedy


def _stages(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("run.until", "run.from"):
        value = _get(config, key)
        if value is not None and value not in STAGES:
            yield f"{key}: there is no stage '{value}'", did_you_mean(str(value), STAGES)
    waves = [stage.name for stage in fields(WaveResourcesConf)]
    for stage in _get(config, "sweep.waves") or []:
        if stage not in waves:
            yield f"sweep.waves: no wave ends with '{stage}'", did_you_mean(stage, waves)
    until, start = _get(config, "run.until"), _get(config, "run.from")
    if until in STAGES and start in STAGES and not reaches(until, start):
        yield (
            f"run.from: {start} comes after run.until={until}",
            "swap them, or leave run.until out",
        )


def _allocation(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the main arm and the others say of how their points are shared out among the classes."""
    arms = {"": config} | {f"baselines.{name}.": arm for name, arm in config["baselines"].items()}
    for path, arm in arms.items():
        allocation = arm.get("allocation", "equal")
        if allocation not in _ALLOCATIONS:
            cause = f"{path}allocation: '{allocation}' is not known"
            yield cause, did_you_mean(allocation, _ALLOCATIONS)
        elif is_method(arm) and allocation != "equal":
            method = arm["method"]["name"]
            cause = f"{path}allocation: {allocation} goes by a quantizer's error"
            yield f"{cause}, and method={method} has none", f"set {path}allocation=equal"


def _combinations(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    strength = _get(config, "generator.strength")
    if strength is not None and not 0 < strength <= 1:
        yield (
            f"generator.strength: {strength} is outside (0, 1]",
            "use 1 for pure noise, generator=decode for none",
        )
    for strength in _get(config, "ablation.strengths") or []:
        if not 0 <= strength <= 1:
            yield (
                f"ablation.strengths: {strength} is outside [0, 1]",
                "0 decodes without diffusion, 1 is pure noise",
            )
    exponent, folds = _get(config, "quantizer.step_exponent"), _get(config, "measure.num_folds")
    if exponent is not None and not 0.5 < exponent <= 1:
        yield (
            f"quantizer.step_exponent: {exponent} is outside (0.5, 1]",
            "1 is the paper's; lower ones forget faster",
        )
    if folds is not None and (folds < 0 or folds == 1):
        yield (
            f"measure.num_folds: {folds} is neither 0 nor 2 or more",
            "use 5, or 0 for no held-out distortion",
        )
    for num in _get(config, "measure.curve") or []:
        if num <= 0:
            yield (
                f"measure.curve: {num} is not positive",
                "list numbers of centroids, e.g. [1, 10, 50]",
            )
    if _get(config, "dataset.channels") not in (1, 3):
        yield (
            f"dataset.channels: {_get(config, 'dataset.channels')} is neither 1 nor 3",
            "use 1 for grey, 3 for RGB",
        )
    yield from _pixel_range(config["dataset"]["pixel_range"])
    yield from _pretrained(config)
    yield from protocols.protocol_problems(config)
    for path, _, part in components(config):
        if "low" in part and not 0 <= part["low"] <= part["high"]:
            yield f"{path}.low: {part['low']} is not in [0, {path}.high={part['high']}]", "lower it"
    yield from _fitted(config)


def _fitted(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What only models that are fitted here can get wrong."""
    patch = _get(config, "generator.fit.patch_size")
    _, size = stated_latent_shape(config) or (None, None)
    if _get(config, "generator.path") is None and patch and size and size % patch:
        divisors = [str(p) for p in range(1, min(size, _MOST_PATCH) + 1) if size % p == 0]
        yield (
            f"generator.fit.patch_size: {patch} does not divide the latents' side, {size}",
            f"use {', '.join(divisors)}",
        )
    blocks = _get(config, "encoder.fit.block_out_channels")
    if blocks is not None and (not blocks or min(blocks) < 1):
        yield (
            f"encoder.fit.block_out_channels: {blocks} are no numbers of channels",
            "use e.g. [32, 64]",
        )
    elif (
        _get(config, "encoder.path") is None
        and blocks
        and config["dataset"]["image_size"] % 2 ** (len(blocks) - 1)
    ):
        yield (
            f"encoder.fit.block_out_channels: {len(blocks) - 1} halvings "
            f"do not divide dataset.image_size, {config['dataset']['image_size']}",
            "use fewer blocks or another image size",
        )


def _pixel_range(values: list[float] | None) -> Iterator[tuple[str, str]]:
    if values is not None and (len(values) != 2 or not values[0] < values[1]):
        yield (
            f"dataset.pixel_range: {values} is no black and a larger white",
            "set it to e.g. [0,4095], or null",
        )


def _pretrained(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What only models with weights of their own can get wrong."""
    encoder, generator = config["encoder"], config["generator"]
    for part, conf in (("encoder", encoder), ("generator", generator)):
        if "path" in conf and conf["path"] is None and "fit" not in conf:
            yield (
                f"{part}.path: null, and {part}={conf['name']} cannot be fitted here",
                f"set {part}.path=...",
            )
    if encoder["_target_"] == "ddoq.encoders.TAEF2" and config["dataset"]["image_size"] % 8:
        size = config["dataset"]["image_size"]
        below = size // 8 * 8
        yield (
            f"dataset.image_size: {size} is no multiple of 8, and encoder=taef2 needs one",
            f"set dataset.image_size to {f'{below} or ' if below else ''}{below + 8}",
        )
    if generator.get("classes") == "imagenet" and generator["path"] is None:
        yield (
            "generator.classes: a DiT that is fitted here knows the data set's classes",
            "set generator.classes=dataset",
        )
    if generator.get("order") is not None and generator["path"] is None:
        yield (
            "generator.order: a DiT that is fitted here has the data set's order",
            "set generator.order=null",
        )
    if generator.get("start") == "noise" and generator["strength"] != 1:
        yield (
            f"generator.strength: {generator['strength']} with generator.start=noise would start "
            "in the middle without anything to start from",
            "set generator.strength=1",
        )
    if not 0 <= generator.get("mode_stop", 0) <= 1:
        yield (
            f"generator.mode_stop: {generator['mode_stop']} is outside [0, 1]",
            "MGD3 stops at 0.5",
        )
    if generator.get("mode_guidance", 0) < 0:
        yield (
            f"generator.mode_guidance: {generator['mode_guidance']} pushes away from the centroid",
            "0 is off",
        )
    for _, field, _, _ in Formatter().parse(generator.get("prompt", "")):
        if field not in (None, "name", "synonyms"):
            yield f"generator.prompt: there is no {{{field}}}", "use {name} or {synonyms}"


def stated_latent_shape(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return channels and side of the latents where they follow from the configuration alone."""
    encoder, size = config["encoder"], config["dataset"]["image_size"]
    if encoder["_target_"] == "ddoq.encoders.Pixels":
        return config["dataset"]["channels"], size
    if encoder["_target_"] == "ddoq.encoders.TAEF2":
        return 32, size // 8
    fit = encoder.get("fit")
    if fit is None or encoder["path"] is not None:
        return None
    return fit["latent_channels"], size // 2 ** (len(fit["block_out_channels"]) - 1)


def check_counts(config: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Raise DataError where the data cannot serve the configuration.

    Args:
        config: resolved.
        facts: of the ``index`` artefact: ``class_names`` and images per class
            and split, ``counts``.
    """
    counts = facts["counts"]["train"]
    smallest = min(range(len(counts)), key=counts.__getitem__)
    if counts[smallest] < config["ipc"] and config["on_small_class"] == "error":
        raise DataError(
            f"ipc: {config['ipc']} is more than the {counts[smallest]} training images of class "
            f"'{facts['class_names'][smallest]}'",
            f"set ipc to at most {counts[smallest]}, "
            "or on_small_class=duplicate, or remove the class",
        )
    ablation = config["ablation"]["strengths"] or config["ablation"]["weightings"]
    for split in dict.fromkeys((config["split"], "validation" if ablation else config["split"])):
        if not sum(facts["counts"][split]):
            raise DataError(
                f"dataset: no {split} images in {sum(counts)} training images",
                f"add images, raise dataset.{split}_fraction, "
                "or measure on another split (split, ablation=none)",
            )


def check_paths(config: Mapping[str, Any]) -> None:
    """Raise ConfigError where ``paths.outputs`` cannot be a folder."""
    outputs = Path(config["paths"]["outputs"])
    if outputs.exists() and not outputs.is_dir():
        raise ConfigError(f"paths.outputs: {outputs} is a file", "set paths.outputs to a folder")


def _get(config: Mapping[str, Any], dotted: str) -> Any:
    value: Any = config
    for name in dotted.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value
