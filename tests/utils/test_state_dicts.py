"""Models as people have them: released and single files, checkpoints of trainings,
remedies followed literally.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from ddoq.data.label_space import LabelSpace
from ddoq.encoders import VAE, Pixels
from ddoq.errors import DataError, DdoqError
from ddoq.experiment import Models
from ddoq.experiment.compatible import check_fit
from ddoq.generators import DiT, Points
from ddoq.generators.released import describe, load_released
from ddoq.labelers import PretrainedTeacher
from ddoq.utils.state_dicts import read_weights
from support.released_dit import forward, weights_of
from support.runs import composed
from support.tiny_models import save_dit, save_vae

SPACE = LabelSpace.from_classes(["a", "b", "c"])
WEIGHTS = "diffusion_pytorch_model.safetensors"


def follow(error: DdoqError) -> None:
    """Run the line of Python in a remedy, as a shell would have it run."""
    exec(
        compile(re.search(r'python -c "(.*?)"(?:,|$)', error.remedy).group(1), "remedy", "exec"), {}
    )


# --- DiT as its authors release it ------------------------------------------------------------


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("released") / "DiT-S-2.pt"
    torch.save(weights_of(num_blocks=2, side=8, num_classes=3), file)
    return file


def test_a_released_dit_computes_what_its_architecture_says(released):
    network = load_released(str(released), "generator.path", "float32")
    sample = torch.randn(4, 4, 8, 8)
    times = torch.tensor([0, 17, 500, 999])
    labels = torch.tensor([0, 1, 2, 3])
    with torch.inference_mode():
        output = network(sample, timestep=times, class_labels=labels).sample
    expected = forward(torch.load(released, weights_only=True), sample, times, labels)
    assert expected.std() > 0.5 and torch.allclose(output, expected, atol=1e-5)


def test_a_released_dit_generates_and_is_judged_before_it_is_read(released):
    known = describe(str(released), "generator.path")
    assert known["scheduler"]["_class_name"] == "DDIMScheduler"
    assert (
        known["transformer"]["sample_size"] == 8
        and known["transformer"]["num_embeds_ada_norm"] == 3
    )
    points = Points(torch.randn(2, 4, 8, 8), torch.tensor([0, 2]), torch.tensor([0, 0]), [1, 2])
    for scheduler in (None, "DDPMScheduler"):  # the second one takes the learned variance
        dit = DiT(
            path=str(released),
            encoder=Pixels(),
            label_space=SPACE,
            num_steps=4,
            scheduler=scheduler,
        )
        assert dit.generate(points).shape == (2, 4, 8, 8)
    config = composed(
        "dataset=image_folder",
        "dataset.root=.",
        "dataset.image_size=8",
        "encoder=pixels",
        "generator=dit",
    )
    config["generator"]["path"] = str(released)
    with pytest.raises(DdoqError, match="takes latents of 4 channels"):
        check_fit(config, Models([]))
    # Found in a folder of paths.models, known by its content.
    config["generator"]["path"] = released.name
    models = Models([str(released.parent)])
    assert re.fullmatch("[0-9a-f]{64}", models.identify(config["generator"], "generator.path"))


def test_a_training_s_checkpoint_gives_its_average(released, tmp_path):
    average = torch.load(released, weights_only=True)
    last = {name: tensor + 1 for name, tensor in average.items()}
    args = argparse.Namespace(model="DiT-S/2", global_seed=np.float64(0))
    torch.save({"model": last, "ema": average, "opt": {}, "args": args}, tmp_path / "0400000.pt")
    network = load_released(str(tmp_path / "0400000.pt"), "generator.path", "float32")
    assert torch.equal(network.proj_out_2.weight, average["final_layer.linear.weight"])


def test_files_that_are_no_released_dit(released, tmp_path):
    weights = torch.load(released, weights_only=True)
    del weights["blocks.1.mlp.fc1.bias"]
    torch.save(weights, tmp_path / "lacking.pt")
    torch.save({**weights, "blocks.1.attn.q_norm.weight": torch.ones(1)}, tmp_path / "other.pt")
    torch.save({"ema": {"blocks.0.attn.qkv.weight": torch.ones(4, 4)}}, tmp_path / "part.pt")
    folder = save_dit(tmp_path / "dit")
    for name in ("lacking.pt", "other.pt", "part.pt"):
        with pytest.raises(DataError, match=r"^generator\.path.*\n"):
            load_released(str(tmp_path / name), "generator.path", "float32")
    # The file in a folder of diffusers instead of the folder.
    with pytest.raises(DataError) as caught:
        describe(str(folder / "transformer" / WEIGHTS), "generator.path")
    assert caught.value.remedy == f"set generator.path={folder}"


# --- VAEs -------------------------------------------------------------------------------------


def compvis(name: str) -> str:
    """Return the name that CompVis gives a weight of an ``AutoencoderKL``
    with three blocks of one layer.
    """
    name = re.sub(r"encoder\.down_blocks\.(\d)\.resnets\.", r"encoder.down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{2 - int(m[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{2 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    for theirs, ours in {
        "mid_block.attentions.0": "mid.attn_1",
        "conv_shortcut": "nin_shortcut",
        "conv_norm_out": "norm_out",
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "proj_out",
    }.items():
        name = name.replace(theirs, ours)
    return name


def test_a_vae_of_one_file_beside_its_configuration(tmp_path):
    folder = save_vae(tmp_path / "vae", halvings=2)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    expected, weights = VAE(str(folder)).encode(images), load_file(folder / WEIGHTS)
    alone = tmp_path / "alone"
    alone.mkdir()
    theirs = {f"first_stage_model.{compvis(name)}": tensor for name, tensor in weights.items()}
    torch.save({"state_dict": theirs, "global_step": 840000}, alone / "vae.ckpt")
    shutil.copy(folder / WEIGHTS, alone / "vae.safetensors")
    encoder = composed("encoder=vae")["encoder"]
    keys = set()
    for file in (alone / "vae.ckpt", alone / "vae.safetensors"):
        with pytest.raises(
            DataError,
            match=r"^encoder\.path: no model in .*config\.json\)\n.*copy the config\.json",
        ):
            VAE(str(file))
        shutil.copy(folder / "config.json", alone)  # what the remedy says
        assert torch.allclose(VAE(str(file)).encode(images), expected, atol=1e-6)
        keys.add(Models([]).identify({**encoder, "path": str(file)}, "encoder.path"))
        (alone / "config.json").unlink()
    assert len(keys) == 2


def test_weights_in_half_precision_alone_are_read(tmp_path):
    folder = save_vae(tmp_path / "vae", halvings=2)
    half = {name: tensor.half() for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(half, folder / "diffusion_pytorch_model.fp16.safetensors", metadata={"format": "pt"})
    both = VAE(str(folder)).vae.state_dict()
    (folder / WEIGHTS).unlink()
    alone = VAE(str(folder)).vae.state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in alone.values())
    assert all(torch.equal(alone[name], tensor.half().float()) for name, tensor in both.items())


def test_names_that_nobody_reads_are_put_right_by_the_remedy(tmp_path):
    folder = save_vae(tmp_path / "vae", halvings=2)
    expected = VAE(str(folder)).vae.state_dict()
    (folder / WEIGHTS).rename(folder / "model.safetensors")
    with pytest.raises(
        DataError, match=r"rename .*model\.safetensors to diffusion_pytorch_model\.safetensors"
    ):
        VAE(str(folder))
    (folder / "model.safetensors").rename(folder / WEIGHTS)
    save_file(
        {f"module.{k}": v.contiguous() for k, v in load_file(folder / WEIGHTS).items()},
        folder / WEIGHTS,
    )
    with pytest.raises(DataError, match='names begin with "module."') as caught:
        VAE(str(folder))
    follow(caught.value)
    assert all(
        torch.equal(tensor, expected[name])
        for name, tensor in VAE(str(folder)).vae.state_dict().items()
    )


def test_a_missing_schedule_is_written_by_the_remedy(tmp_path):
    folder = save_dit(tmp_path / "dit", num_classes=3)
    shutil.rmtree(folder / "scheduler")
    generator = {**composed("generator=dit")["generator"], "path": str(folder)}
    with pytest.raises(DataError, match=r"no scheduler_config\.json") as caught:
        Models([]).identify(generator, "generator.path")
    follow(caught.value)
    assert Models([]).identify(generator, "generator.path")
    assert (
        DiT(path=str(folder), encoder=Pixels(), label_space=SPACE).schedule.config.beta_end == 0.02
    )


# --- checkpoints of teachers ------------------------------------------------------------------


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=3)


def prefixed(weights: dict, *prefixes: str) -> dict:
    return {"".join(prefixes) + name: tensor for name, tensor in weights.items()}


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda w: w,
        lambda w: {
            "state_dict": prefixed(w, "module."),
            "best_acc1": torch.tensor(1.0),
            "epoch": 3,
        },
        lambda w: {"model_state_dict": w, "optimizer_state_dict": {}},
        lambda w: {"net": prefixed(w, "module."), "acc": 90.1},
        lambda w: {"state_dict_ema": w},
        lambda w: {
            "state_dict": w,
            "state_dict_ema": {name: tensor + 1 for name, tensor in w.items()},
        },
        lambda w: prefixed(w, "_orig_mod."),
        lambda w: {
            "state_dict": prefixed(w, "model.", "_orig_mod."),
            "pytorch-lightning_version": "2",
        },
        lambda w: {**prefixed(w, "module."), "n_averaged": torch.tensor(3)},
        lambda w: {**w, "total_ops": torch.zeros(1), "layer1.0.total_params": torch.zeros(1)},
        lambda w: {"state_dict": w, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.9)},
    ],
)
def test_wrapped_checkpoints_are_the_same_teacher(wrapped, network, tmp_path):
    torch.save(wrapped(network.state_dict()), tmp_path / "w.pth")
    weights = read_weights(str(tmp_path / "w.pth"), "resnet10t", "teacher.path")
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in weights.items())


def teacher(path: Path) -> PretrainedTeacher:
    return PretrainedTeacher("resnet10t", SPACE, 3, str(path), classes="dataset")


class Settings:
    """What only its own code could read."""


def test_pickled_code_is_refused_and_the_remedy_saves_the_weights(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(network, "whole.pth")
    torch.save({"state_dict": network.state_dict(), "settings": Settings()}, "settings.pth")
    for name, what in {"whole.pth": "a whole network", "settings.pth": "pickled objects"}.items():
        with pytest.raises(DataError, match=rf"^teacher\.path: {name} holds {what}.*\n") as caught:
            teacher(Path(name))
        follow(caught.value)
        assert torch.equal(teacher(Path("state_dict.pth")).network.fc.weight, network.fc.weight)
        Path("state_dict.pth").unlink()


def test_what_is_no_teacher_s_file_is_named(network, tmp_path):
    weights = network.state_dict()
    torch.save({"student": weights}, tmp_path / "named.pth")
    with pytest.raises(DataError, match="no weights by the usual names, but student"):
        teacher(tmp_path / "named.pth")
    lacking = {
        name: tensor for name, tensor in weights.items() if name != "layer4.0.bn2.running_mean"
    }
    torch.save(lacking, tmp_path / "lacking.pth")
    with pytest.raises(DataError, match=r"layer4\.0\.bn2\.running_mean"):
        teacher(tmp_path / "lacking.pth")
    with pytest.raises(
        DataError, match=rf"is a folder.*\n.*set teacher\.path={tmp_path}/lacking\.pth"
    ):
        teacher(tmp_path)
