"""Guidances in a configuration: what stands for them in keys, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from ddoq.config.arms import arm_name
from ddoq.config.checks import check
from ddoq.config.choices import targets
from ddoq.config.constructors import constructor
from ddoq.config.guidances import needs
from ddoq.config.names import run_name
from ddoq.errors import ConfigError
from ddoq.experiment import Experiment, Models
from ddoq.experiment.compatible import check_fit
from ddoq.experiment.models import networks_of
from support.runs import choice, composed

NOISE = ("generator.start=noise", "generator.strength=1", "ablation=none", "protocol.num_seeds=1")


def experiment(*overrides: str) -> Experiment:
    """Return the experiment of some overrides beside a DiT from noise."""
    return Experiment(composed(*NOISE, *overrides), "data", Models([]))


def main_images(*overrides: str) -> Any:
    """Return the node of the main arm's images."""
    return experiment("baselines=none", *overrides).entries[-1].images


def test_without_guidance_nothing_of_it_is_in_a_key():
    config = composed()
    before = {key: part for key, part in config.items() if not key.startswith("guidance")}
    assert config["guidance"] == config["guidances"] == {}
    assert run_name(config) == run_name(before)
    assert "guidances" not in main_images().identity
    assert main_images("guidance=none").key == main_images().key


def test_mode_guidance_has_the_key_of_the_generators_option():
    assert main_images("guidance=mgd3").key == main_images("generator.mode_guidance=0.1").key
    other = main_images("guidance=mgd3", "guidance.scale=0.2", "guidance.stop=0.1")
    as_option = main_images("generator.mode_guidance=0.2", "generator.mode_stop=0.1")
    assert other.key == as_option.key != main_images().key


def test_several_have_one_key_whatever_they_are_called():
    both = main_images("guidance=dmgd", "+guidance@guidances.b=coda")
    assert both.key == main_images("guidance=dmgd", "+guidance@guidances.z=coda").key
    assert both.key != main_images("guidance=dmgd").key
    assert [conf["name"] for conf in both.identity["guidances"]] == ["dmgd", "coda"]


@pytest.mark.parametrize(
    ("overrides", "name", "guidance"),
    [
        (["guidance=dmgd"], "ddoq_dmgd", "dmgd"),
        (["guidance=dmgd", "weighting=uniform"], "ddoq_dmgd_uniform", "dmgd"),
        (
            ["quantizer=nearest", "guidance=coda", "+guidance@guidances.a=mgd3"],
            "nearest_dit_coda_mgd3_weighted",
            "coda+mgd3",
        ),
    ],
)
def test_the_arm_and_its_rows_are_named_by_its_guidances(overrides, name, guidance):
    assert arm_name(composed(*NOISE, *overrides)) == name
    rows = experiment("baselines=none", *overrides).entries
    assert {row.about["guidance"] for row in rows} == {guidance}


@pytest.mark.parametrize("guidance", sorted(targets("guidance")))
def test_the_plan_has_what_a_guidance_needs(guidance):
    conf = choice("guidance", guidance)
    wanted = needs(conf)
    inputs = main_images(f"guidance={guidance}").inputs
    assert ("teacher" in inputs) == ("teacher" in wanted)
    assert ("encode" in inputs) == ("latents" in wanted)
    assert (f"surrogates.{conf['name']}" in inputs) == ("surrogates" in wanted)


def test_surrogates_are_shared_by_arms_and_depend_on_their_training_alone():
    name = "surrogates.igd_reconstructed"
    igd, ot = (main_images(f"guidance={choice}") for choice in ("igd", "ot"))
    assert igd.inputs[name].key == ot.inputs["surrogates.ot_reconstructed"].key
    longer = main_images("guidance=igd", "guidance.fit.epochs=60").inputs[name]
    stronger = main_images("guidance=igd", "guidance.scale=6")
    assert longer.key != igd.inputs[name].key
    assert stronger.inputs[name].key == igd.inputs[name].key
    assert stronger.key != igd.key


def test_what_the_run_gives_is_read_from_the_constructor():
    assert constructor("ddoq.guidances.OTGuided").given == {"surrogates", "latents"}
    assert constructor("ddoq.guidances.MGD3").given == frozenset()
    assert {"encoder", "cells"} <= constructor("ddoq.generators.DiT").given


def test_a_teacher_that_only_a_guidance_needs_is_fetched():
    def names(*overrides: str) -> list[str]:
        config = composed(*NOISE, "teacher=resnet18", "protocol.labels=hard", *overrides)
        return [key for _, key in networks_of(config)]

    assert "teacher.path" in names("guidance=uag") and "teacher.path" not in names()


def test_every_guidance_is_a_row_beside_the_others():
    arms = experiment("baselines=guided").arms()
    names = {arm["guidance"]["name"] for arm in arms.values() if arm.get("guidance")}
    assert names == {choice("guidance", name)["name"] for name in targets("guidance")} | {
        "dmgd_equal"
    }
    assert {"noise", "latents", "random"} <= set(arms)
    assert arms["dmgd"]["guidance"]["masses"] and not arms["dmgd_equal"]["guidance"]["masses"]
    assert arms["coda"]["quantizer"]["name"] == "nearest"
    check(composed("baselines=guided"))
    check(composed("baselines=guided_photographs", "encoder=taef2", "dataset.image_size=64"))


def test_an_arm_that_is_decoded_for_comparison_is_not_guided():
    overrides = ("generator.strength=0.9", "guidance=dmgd", "baselines=none")
    entries = Experiment(composed(*overrides), "data", Models([])).entries
    decoded = [entry for entry in entries if entry.value == "0"]
    assert decoded and all("guidances" not in entry.images.identity for entry in decoded)


@pytest.mark.parametrize(
    ("overrides", "cause"),
    [
        (["guidance=mgd3", "generator=decode"], "guidance: mgd3 steers a diffusion model"),
        (["guidance=dmgd", "generator=real", "quantizer=random"], "generator=real is none"),
        (["guidance=dmgd"], "guidance: dmgd acts above 0.6 of the schedule"),
        (["+guidance@guidances.a=dmgd"], "guidances.a: dmgd acts above"),
        ([*NOISE, "guidance=dmgd", "guidance.rounds=0"], "guidance.rounds"),
        ([*NOISE, "guidance=dmgd", "guidance.low=0.95"], "guidance.low: 0.95 is more than"),
        (
            [*NOISE, "guidance=mgd3", "generator.mode_guidance=0.1"],
            "in generator.mode_guidance, too",
        ),
        (["guidance=mgd3", "generator.start=statistics"], "generator.start: statistics has draws"),
        (
            ["generator.mode_guidance=0.1", "generator.start=statistics"],
            "guidances steer by points",
        ),
        ([*NOISE, "guidance=igd", "guidance.fit.epochs=0"], "guidance.fit.epochs"),
        (["baselines=guided", "baselines.dmgd.guidance.scale=-1"], "baselines.dmgd.guidance.scale"),
        (["baselines=guided", "+baselines.dmgd.guidances.a=3"], "baselines.dmgd.guidances.a"),
        (
            ["method=dm", "+baselines.m.method=${method}", "+baselines.m.guidance={}"],
            "a method and",
        ),
        (
            ["generator=sd15", "generator.start=noise", "generator.strength=1", "guidance=dmgd"],
            "guidance: dmgd replaces embedded classes",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_two_lines(overrides, cause):
    with pytest.raises(ConfigError) as caught:
        check(composed(*overrides))
    assert cause in str(caught.value) and len(str(caught.value).splitlines()) == 2


def test_schedulers_that_scale_are_refused_before_anything_is_computed():
    config = composed(*NOISE, "guidance=dmgd", "generator.scheduler=EulerDiscreteScheduler")
    with pytest.raises(ConfigError, match="generator.scheduler: Euler.* scales its samples"):
        check_fit(config, Models([]))
