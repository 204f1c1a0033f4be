"""What types, choices and ranges cannot say: combinations.

All problems are reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from string import Formatter
from typing import Any

from ddoq.config import methods, protocols
from ddoq.config.arms import FEATURES, TEACHER_FEATURES, is_method
from ddoq.config.form import check_form, complain
from ddoq.config.guidances import guidance_problems
from ddoq.config.limits import limit_problems
from ddoq.config.parts import Problems, components
from ddoq.config.schema import WaveResourcesConf
from ddoq.errors import ConfigError, DataError, did_you_mean
from ddoq.pipeline.stages import STAGES, reaches

_MOST_PATCH = 64  # that an error suggests
_MOST_SEEDS = 100  # so many belong to one ``seed``, see ``ddoq.stages.graph.Experiment``


def check(config: Mapping[str, Any]) -> None:
    """Raise ConfigError for the problems of a resolved configuration;
    every problem is named, those of form first.
    """
    check_form(config)
    complain(_problems(config))


def _problems(config: Mapping[str, Any]) -> Problems:
    yield from limit_problems(config)
    yield from _seeds(config)
    yield from _processes(config["trainer"]["processes"])
    yield from _arms(config)
    yield from _methods(config)
    yield from guidance_problems(config)
    yield from _stages(config)
    yield from _combinations(config)


def _seeds(config: Mapping[str, Any]) -> Problems:
    for section in ("protocol", "ablation"):
        if (number := config[section]["num_seeds"]) > _MOST_SEEDS:
            cause = f"{section}.num_seeds: {number} is more than {_MOST_SEEDS}"
            yield cause, "make several runs with other values of seed"


def _processes(number: Any) -> Problems:
    if number != "auto" and (type(number) is not int or number < 1):
        cause = f"trainer.processes: {number} is neither auto nor a number"
        yield cause, "set trainer.processes=auto, or to 1 or more"


def _methods(config: Mapping[str, Any]) -> Problems:
    """What the rules of methods leave undecided, or ask for in vain."""
    for path, group, method in components(config):
        if group == "method":
            ipc, dataset = config["ipc"], config["dataset"]["name"]
            try:
                methods.resolved(method, ipc=ipc, dataset=dataset, path=path)
            except ConfigError as error:
                yield error.cause, error.remedy


def _stages(config: Mapping[str, Any]) -> Problems:
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


def _arms(config: Mapping[str, Any]) -> Problems:
    """What the main arm and the others ask for that their routes cannot give."""
    arms = {"": config} | {f"baselines.{name}.": arm for name, arm in config["baselines"].items()}
    for path, arm in arms.items():
        if is_method(arm) and (allocation := arm.get("allocation", "equal")) != "equal":
            method = arm["method"]["name"]
            cause = f"{path}allocation: {allocation} goes by a quantizer's error"
            yield f"{cause}, and method={method} has none", f"set {path}allocation=equal"
        yield from _selection(arm, path)


def _selection(arm: Mapping[str, Any], path: str) -> Problems:
    """What makes no several draws, or no features of them."""
    selection = arm.get("selection") or {"name": "none"}
    if selection["name"] == "none":
        return
    maker = next(part for part in ("method", "generator") if arm.get(part) is not None)
    if "strength" not in arm[maker]:
        yield (
            f"{path}selection: {selection['name']} chooses among draws of the same points, and "
            f"{path}{maker}={arm[maker]['name']} makes one set of images",
            f"set {path}selection=none, or a {path}generator that draws, e.g. dit",
        )
    yield from _features(selection.get("space"), f"{path}selection.space")


def _features(space: Mapping[str, Any] | None, path: str) -> Problems:
    """What is no space of features of images."""
    if space is not None and space["_target_"] not in (FEATURES, TEACHER_FEATURES):
        yield (
            f"{path}: {space['name']} is no space of an image's features",
            f"choose features, efficientnet_lite0 or teacher: +space@{path}=features",
        )


def _combinations(config: Mapping[str, Any]) -> Problems:
    folds = config["measure"]["num_folds"]
    if folds < 0 or folds == 1:
        yield (
            f"measure.num_folds: {folds} is neither 0 nor 2 or more",
            "use 5, or 0 for no held-out distortion",
        )
    yield from _features(config["measure"]["space"], "measure.space")
    yield from _pixel_range(config["dataset"]["pixel_range"])
    yield from _pretrained(config)
    yield from protocols.protocol_problems(config)
    for path, _, part in components(config):
        if "low" in part and part["low"] > part["high"]:
            yield f"{path}.low: {part['low']} is more than {path}.high={part['high']}", "lower it"
    yield from _fitted(config)


def _fitted(config: Mapping[str, Any]) -> Problems:
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
    if blocks == []:
        yield "encoder.fit.block_out_channels: no numbers of channels", "use e.g. [32, 64]"
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


def _pixel_range(values: list[float] | None) -> Problems:
    if values is not None and (len(values) != 2 or not values[0] < values[1]):
        yield (
            f"dataset.pixel_range: {values} is no black and a larger white",
            "set it to e.g. [0,4095], or null",
        )


def _pretrained(config: Mapping[str, Any]) -> Problems:
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
