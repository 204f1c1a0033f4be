"""Pretrained models that do not fit the data or one another:
refused by what they say of themselves, with a way out.
"""

from __future__ import annotations

import json
import re
import shutil
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image

from ddoq.data.images import from_unit, with_channels
from ddoq.encoders import VAE
from ddoq.errors import DdoqError
from ddoq.experiment import Models
from ddoq.experiment.compatible import check_fit, remarks
from support.runs import composed, run_here
from support.tiny_models import save_dit, save_stable_diffusion, save_vae

SMALL = ("encoder=vae", "dataset=image_folder", "dataset.root=.", "dataset.image_size=16")
MEAN, STD = [0.3, -0.2, 0.1, 0.0], [0.5, 2.0, 0.7, 1.5]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A VAE that makes images 4 times smaller, a tiny one, a DiT for its latents of 16 pixels,
    a Stable Diffusion.
    """
    top = tmp_path_factory.mktemp("models")
    sizes = {"encoder_block_out_channels": (8,) * 3, "decoder_block_out_channels": (8,) * 3}
    AutoencoderTiny(
        **sizes, num_encoder_blocks=(1,) * 3, num_decoder_blocks=(1,) * 3
    ).save_pretrained(top / "tiny")
    return {
        "vae": save_vae(top / "vae", halvings=2),
        "tiny": top / "tiny",
        "dit": save_dit(top / "dit", num_classes=4, side=4),
        "sd": save_stable_diffusion(top / "sd"),
    }


def changed(folder: Path, place: Path, file: str, **values) -> Path:
    """Copy a model with other values in one of its JSON files; ``...`` removes one."""
    copy = shutil.copytree(folder, place)
    known = {**json.loads((copy / file).read_text()), **values}
    (copy / file).write_text(
        json.dumps({name: value for name, value in known.items() if value is not ...})
    )
    return copy


@cache
def configuration(*overrides: str) -> dict:
    """Compose once what many tests start from: that takes most of the time."""
    return composed(*SMALL, *overrides)


def check(vae: Path, *overrides: str, dit: Path | None = None, sd: Path | None = None) -> list[str]:
    """Judge models as a plan does; an override is a number of a component, or a choice."""
    choice = "dit" if dit or "generator=dit" in overrides else "sd15" if sd else "decode"
    config = deepcopy(configuration(f"generator={choice}"))
    for key, value in (word.split("=") for word in overrides if "." in word):
        *inner, last = key.split(".")
        part = config
        for name in inner:
            part = part[name]
        part[last] = int(value) if value.isdigit() else value
    config["encoder"]["path"] = str(vae)
    if dit or sd:
        config["generator"]["path"] = str(dit or sd)
    check_fit(config, Models([]))
    return list(remarks(config, Models([])))


def refusal(*arguments, **models) -> str:
    with pytest.raises(DdoqError) as caught:
        check(*arguments, **models)
    assert str(caught.value).count("\n") == 1
    return str(caught.value)


# --- what fits --------------------------------------------------------------------------------


def test_what_fits_passes_without_a_word(folders, tmp_path):
    vae, tiny, dit, sd = (folders[name] for name in ("vae", "tiny", "dit", "sd"))
    assert not check(vae) and not check(tiny) and not check(vae, dit=dit)
    # Latents of 5×5: a U-Net brings them back.
    assert not check(vae, "dataset.image_size=20", sd=sd)
    old = changed(
        dit,
        tmp_path / "old",
        "transformer/config.json",
        _class_name="Transformer2DModel",
        out_channels=None,
    )
    assert not check(vae, dit=old)
    v = changed(
        dit, tmp_path / "v", "scheduler/scheduler_config.json", prediction_type="v_prediction"
    )
    assert not check(vae, dit=v)
    assert not check(
        changed(vae, tmp_path / "n", "config.json", latents_mean=MEAN, latents_std=STD)
    )
    assert not check(changed(vae, tmp_path / "s", "config.json", shift_factor=0.1))
    grey = changed(vae, tmp_path / "grey", "config.json", in_channels=1, out_channels=1)
    assert not check(grey, "dataset.channels=1")


def test_what_is_taken_for_granted_is_said(folders, tmp_path):
    unstated = changed(folders["vae"], tmp_path / "unstated", "config.json", scaling_factor=...)
    assert "0.18215" in check(unstated)[0]
    assert "grey" in check(folders["vae"], "dataset.channels=1")[0]


# --- sizes and channels -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "model", "nearest"),
    [(18, "vae", "16 or 20"), (3, "vae", "4"), (19, "tiny", "16 or 20")],
)
def test_sizes_that_the_encoder_does_not_divide(size, model, nearest, folders):
    text = refusal(folders[model], f"dataset.image_size={size}")
    assert text.startswith(f"dataset.image_size: {size} is no multiple of 4") and text.endswith(
        nearest
    )
    assert not check(folders[model], f"dataset.image_size={nearest.split()[0]}")


def test_a_dit_takes_latents_of_one_size(folders, tmp_path):
    for size in (18, 32):
        text = refusal(folders["vae"], f"dataset.image_size={size}", dit=folders["dit"])
        assert text.endswith("set dataset.image_size to 16")
    uneven = changed(folders["dit"], tmp_path / "m", "transformer/config.json", sample_size=5)
    assert "patch_size=2 and sample_size=5" in refusal(
        folders["vae"], "dataset.image_size=20", dit=uneven
    )


def test_a_dit_that_is_fitted_here_has_to_cut_a_pretrained_encoder_s_latents(folders):
    text = refusal(folders["vae"], "generator=dit", "dataset.image_size=20")
    assert text.startswith("generator.fit.patch_size") and text.endswith("16 or 24")
    fitting = ("dataset.image_size=24",), ("dataset.image_size=20", "generator.fit.patch_size=1")
    for overrides in fitting:
        (remark,) = check(folders["vae"], "generator=dit", *overrides)
        assert remark.startswith("fitted to the data first: a DiT (")


def test_channels_of_networks(folders, tmp_path):
    vae, file = folders["vae"], "transformer/config.json"
    wide = changed(folders["dit"], tmp_path / "wide", file, in_channels=16, out_channels=32)
    assert "16 channels, encoder=vae makes 4" in refusal(vae, dit=wide)
    assert "predicts 3" in refusal(
        vae, dit=changed(folders["dit"], tmp_path / "m3", file, out_channels=3)
    )
    assert "guidance_channels: 5" in refusal(
        vae, "generator.guidance_channels=5", dit=folders["dit"]
    )
    unet = "unet/config.json"
    assert "inpainting" in refusal(
        vae, sd=changed(folders["sd"], tmp_path / "inpaint", unet, in_channels=9)
    )
    assert "Stable Diffusion XL" in refusal(
        vae, sd=changed(folders["sd"], tmp_path / "xl", unet, addition_embed_type="text_time")
    )
    assert "16 numbers, the U-Net takes 32" in refusal(
        vae, sd=changed(folders["sd"], tmp_path / "w", unet, cross_attention_dim=32)
    )


def test_channels_of_images(folders, tmp_path):
    grey = changed(folders["vae"], tmp_path / "grey", "config.json", in_channels=1, out_channels=1)
    text = refusal(grey, "dataset.channels=3")
    assert text.startswith("dataset.channels: 3") and "set dataset.channels=1" in text
    for number, (taken, made) in enumerate([(4, 4), (3, 1), (1, 3)]):
        other = changed(
            folders["vae"],
            tmp_path / str(number),
            "config.json",
            in_channels=taken,
            out_channels=made,
        )
        assert f"of {taken} channels" in refusal(other, "dataset.channels=1")


@pytest.mark.parametrize("name", ["AsymmetricAutoencoderKL", "VQModel", "AutoencoderDC", None])
def test_other_classes_name_those_that_fit(name, folders, tmp_path):
    text = refusal(changed(folders["vae"], tmp_path / "m", "config.json", _class_name=name))
    assert f"holds a {name}" in text and "AutoencoderKL, AutoencoderTiny" in text


# --- scaling ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"scaling_factor": None}, "scaling_factor=None"),
        ({"scaling_factor": 0}, "scaling_factor=0"),
        ({"scaling_factor": -1.0}, "scaling_factor=-1.0"),
        ({"scaling_factor": float("nan")}, "scaling_factor=nan"),
        ({"scaling_factor": "0.5"}, "scaling_factor='0.5'"),
        ({"shift_factor": float("inf")}, "shift_factor=inf"),
        ({"latents_mean": MEAN}, "latents_mean without"),
        ({"latents_mean": MEAN, "latents_std": STD, "shift_factor": 0.1}, "shift_factor beside"),
        ({"latents_mean": MEAN[:3], "latents_std": STD}, "3 numbers in latents_mean"),
        ({"latents_mean": MEAN, "latents_std": [0.5, 0, 1, 1]}, "latents_std"),
        ({"latents_mean": 0.1, "latents_std": STD}, "no numbers in latents_mean"),
    ],
)
def test_scaling_that_is_none(values, said, folders, tmp_path):
    broken = changed(folders["vae"], tmp_path / "m", "config.json", **values)
    text = refusal(broken)
    assert text.startswith("encoder.path") and said in text
    with pytest.raises(DdoqError, match=r"^encoder\.path"):
        VAE(str(broken))


def test_latents_are_scaled_as_in_the_pipelines_of_diffusers(folders, tmp_path):
    plain = VAE(str(folders["vae"]))
    normal = VAE(
        str(
            changed(
                folders["vae"], tmp_path / "n", "config.json", latents_mean=MEAN, latents_std=STD
            )
        )
    )
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    raw, mean, std = (
        plain.encode(images) / plain.scale,
        *(torch.tensor(v).view(1, 4, 1, 1) for v in (MEAN, STD)),
    )
    assert torch.allclose(normal.encode(images), (raw - mean) * 0.18215 / std, atol=1e-6)
    latents = torch.randn(2, 4, 4, 4)
    # StableDiffusionXLPipeline's last lines.
    expected = normal.vae.decode(latents * std / 0.18215 + mean).sample
    assert torch.allclose(normal.decode(latents), expected, atol=1e-5)


def test_a_key_says_that_latents_are_normalised_and_other_keys_stay(folders, tmp_path):
    def identity(folder: Path) -> str:
        encoder = configuration("generator=decode")["encoder"] | {"path": str(folder)}
        return Models([]).identify(encoder, "encoder.path")

    normal = changed(
        folders["vae"], tmp_path / "n", "config.json", latents_mean=MEAN, latents_std=STD
    )
    assert identity(normal).endswith("latents_mean,latents_std")
    assert re.fullmatch("[0-9a-f]{64}", identity(folders["vae"]))


# --- schedulers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "flow matching"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "flow matching"),
        ({"_class_name": "LCMScheduler"}, "set generator.scheduler=DDIMScheduler"),
        ({"_class_name": None}, "intermediate time"),
        ({"prediction_type": "flow_prediction"}, "epsilon, v_prediction, sample"),
        ({"beta_schedule": "cosine"}, "squaredcos_cap_v2"),
        ({"beta_start": 0.02, "beta_end": 1e-4}, "0 < start <= end < 1"),
        ({"beta_end": None}, "beta_end=None"),
        ({"trained_betas": [0.1, float("nan")]}, "trained_betas"),
        ({"num_train_timesteps": 5}, "set generator.num_steps to at most 5"),
        ({"num_train_timesteps": "1000"}, "num_train_timesteps='1000'"),
    ],
)
def test_schedulers_that_do_not_fit(values, said, folders, tmp_path):
    broken = changed(folders["dit"], tmp_path / "m", "scheduler/scheduler_config.json", **values)
    text = refusal(folders["vae"], dit=broken)
    assert text.startswith("generator.") and said in text
    if "set generator." in text:
        key, value = re.search(r"set (generator\.\w+)(?:=| to at most )(\w+)", text).groups()
        assert not check(folders["vae"], f"{key}={value}", dit=broken)


def test_a_variance_that_nobody_predicts(folders, tmp_path):
    file = "scheduler/scheduler_config.json"
    values = {"_class_name": "DDPMScheduler", "variance_type": "learned_range"}
    learned = changed(folders["dit"], tmp_path / "learned", file, **values)
    assert not check(folders["vae"], dit=learned)
    plain = changed(learned, tmp_path / "plain", "transformer/config.json", out_channels=4)
    assert "fixed_small" in refusal(folders["vae"], dit=plain)


# --- grey images ------------------------------------------------------------------------------


def test_grey_is_the_luma_of_pillow():
    colours = torch.randint(
        0, 256, (5, 3, 7, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    grey = from_unit(with_channels(colours / 127.5 - 1, 1))
    for colour, image in zip(colours, grey, strict=True):
        pillow = Image.fromarray(colour.permute(1, 2, 0).numpy()).convert("L")
        assert (torch.tensor(list(pillow.tobytes())).view(7, 7) - image[0].int()).abs().max() <= 1
    assert with_channels(colours, 3) is colours


def modes(run: Path) -> set[str]:
    return {Image.open(file).mode for file in run.glob("distilled/*/*.png")}


def test_grey_data_pass_a_colour_vae_and_come_back_grey(folders, tmp_path):
    model = save_dit(tmp_path / "dit", 10, side=2)
    run = run_here(
        "+experiment=digits",
        "encoder=vae",
        f"encoder.path={folders['vae']}",
        f"generator.path={model}",
        "generator.num_steps=2",
        "ablation=none",
        "ablation.strengths=[0,1]",  # decoded, and through the DiT
        "ablation.num_seeds=1",
        "protocol=smoke",
        "protocol.num_seeds=1",
        "baselines=none",
        "measure.curve=[]",
        "measure.num_folds=0",
        "ipc=1",
        "trainer.accelerator=cpu",
        f"paths.outputs={tmp_path / 'out'}",
    )
    made = list((tmp_path / "out" / "store" / "generate").rglob("*.png"))
    assert (
        len(made) == 30
        and {Image.open(file).mode for file in made} == {"L"}
        and modes(run) == {"L"}
    )


def test_grey_data_pass_the_real_taef2(shared, tmp_path):
    if not (shared / "fashion_mnist").is_dir():
        pytest.skip("needs Fashion-MNIST")
    run = run_here(
        "dataset=fashion_mnist",
        f"paths.data={shared}",
        f"paths.models={shared}",
        "encoder=taef2",
        "dataset.image_size=32",
        "dataset.train_per_class=4",
        "generator=decode",
        "protocol=smoke",
        "student=convnet_d3_w16",
        "baselines=none",
        "ablation=none",
        "measure.curve=[]",
        "measure.num_folds=0",
        "ipc=1",
        "run.until=label",
        "trainer.accelerator=cpu",
        f"paths.outputs={tmp_path / 'out'}",
    )
    pictures = list((tmp_path / "out" / "store" / "label").rglob("*.png"))
    assert pictures and {Image.open(file).mode for file in pictures} == {"L"} and run.is_dir()
