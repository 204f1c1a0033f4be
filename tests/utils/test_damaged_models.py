"""Damaged and lying models: two lines that name the config path,
when they are read or before anything is computed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import get_model

from ddoq.data.label_space import LabelSpace
from ddoq.encoders import TAEF2, VAE, Features, Pixels
from ddoq.encoders.taef2 import _decoder, _encoder
from ddoq.errors import DdoqError
from ddoq.generators import DiT, StableDiffusion
from ddoq.labelers import CIFARResNet, PretrainedTeacher
from ddoq.labelers.cifar_resnet import ResNet
from support.runs import run_here
from support.tiny_models import save_dit, save_stable_diffusion, save_vae

SPACE = LabelSpace.from_classes(["a", "b", "c"])


def own(network: str, path: Path, library: str = "timm") -> PretrainedTeacher:
    return PretrainedTeacher(network, SPACE, 3, str(path), library, classes="dataset")


#: Where a model's weights are in its folder, how it is read,
#: and the config path that its errors name.
KINDS = {
    "vae": ("vae/diffusion_pytorch_model.safetensors", lambda f: VAE(str(f)), "encoder.path"),
    "taef2": ("taef2_encoder.pth", lambda f: TAEF2(str(f)), "encoder.path"),
    "dit": (
        "transformer/diffusion_pytorch_model.safetensors",
        lambda f: DiT(path=str(f), encoder=Pixels(), label_space=SPACE),
        "generator.path",
    ),
    "unet": (
        "unet/diffusion_pytorch_model.safetensors",
        lambda f: StableDiffusion(path=str(f), encoder=Pixels(), label_space=SPACE),
        "generator.path",
    ),
    "text_encoder": (
        "text_encoder/model.safetensors",
        lambda f: StableDiffusion(path=str(f), encoder=Pixels(), label_space=SPACE),
        "generator.path",
    ),
    "space": (
        "w.safetensors",
        lambda f: Features("resnet10t", str(f / "w.safetensors")),
        "space.path",
    ),
    "timm": ("w.safetensors", lambda f: own("resnet10t", f / "w.safetensors"), "teacher.path"),
    "torchvision": ("w.pth", lambda f: own("resnet18", f / "w.pth", "torchvision"), "teacher.path"),
    "npz": ("w.npz", lambda f: CIFARResNet(str(f / "w.npz"), 3), "teacher.path"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> dict[str, Path]:
    """One undamaged folder per kind."""
    top = tmp_path_factory.mktemp("good")
    torch.manual_seed(0)
    for name in ("taef2", "timm", "torchvision", "npz"):
        (top / name).mkdir()
    torch.save(_encoder().state_dict(), top / "taef2" / "taef2_encoder.pth")
    torch.save(_decoder().state_dict(), top / "taef2" / "taef2_decoder.pth")
    save_file(
        timm.create_model("resnet10t", num_classes=3).state_dict(), top / "timm" / "w.safetensors"
    )
    torch.save(get_model("resnet18", num_classes=3).state_dict(), top / "torchvision" / "w.pth")
    np.savez(
        top / "npz" / "w.npz",
        **{name: one.numpy() for name, one in ResNet(20, 3).state_dict().items()},
    )
    sd = save_stable_diffusion(top / "sd")
    vae, dit = save_vae(top / "vae" / "vae").parent, save_dit(top / "dit", num_classes=3)
    return {name: top / name for name in ("taef2", "timm", "torchvision", "npz")} | {
        "vae": vae,
        "dit": dit,
        "unet": sd,
        "text_encoder": sd,
        "space": top / "timm",
    }


def read(file: Path) -> dict[str, torch.Tensor]:
    if file.suffix == ".npz":
        return {
            name: torch.from_numpy(one) for name, one in np.load(file, allow_pickle=False).items()
        }
    return load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)


def write(file: Path, weights: dict[str, torch.Tensor]) -> None:
    if file.suffix == ".npz":
        np.savez(file, **{name: one.numpy() for name, one in weights.items()})
    elif file.suffix == ".safetensors":
        save_file(weights, file, metadata={"format": "pt"})
    else:
        torch.save(weights, file)


def damage(file: Path, how: str) -> None:
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-700])
    elif how == "text":
        file.write_text("these are no weights")
    elif how == "absent":
        file.unlink()
    else:
        weights = read(file)
        first = next(name for name, one in weights.items() if one.ndim > 1)
        if how in ("nan", "inf"):
            weights[first].view(-1)[3] = float(how)
        elif how == "shape":
            weights[first] = torch.zeros([side + 1 for side in weights[first].shape])
        elif how == "lacking":
            del weights[first]
        else:
            weights = {"another.weight": torch.zeros(3, 3)}
        write(file, weights)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_weights_are_refused_when_they_are_read(kind, good, tmp_path):
    name, load, key = KINDS[kind]
    load(good[kind])
    for how in ("nan", "inf", "shape", "lacking", "another", "truncated", "text", "absent"):
        folder = shutil.copytree(good[kind], tmp_path / how)
        damage(folder / name, how)
        with pytest.raises(DdoqError) as caught:
            load(folder)
        said = str(caught.value)
        assert said.startswith(key) and said.count("\n") == 1, (how, said)
        assert "NaN or infinite" in said or how not in ("nan", "inf"), said


@pytest.mark.parametrize("text", ["no json", "[]", "{}", b"\xff\xfe\0", "strings", "null"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [("vae", "vae/config.json"), ("dit", "transformer/config.json"), ("unet", "unet/config.json")],
)
def test_a_configuration_that_lies_is_refused(kind, name, text, good, tmp_path):
    folder = shutil.copytree(good[kind], tmp_path / "m")
    lie(folder / name, text)
    with pytest.raises(DdoqError) as caught:
        KINDS[kind][1](folder)
    assert str(caught.value).startswith(KINDS[kind][2]) and str(caught.value).count("\n") == 1


@pytest.mark.parametrize("text", ["no json", "[]", "{}", b"\xff\xfe\0", "strings", "null", "utils"])
def test_a_scheduler_that_is_none_is_refused(text, good, tmp_path):
    folder = shutil.copytree(good["dit"], tmp_path / "m")
    lie(folder / "scheduler" / "scheduler_config.json", text)
    with pytest.raises(DdoqError) as caught:
        KINDS["dit"][1](folder)
    assert str(caught.value).startswith("generator.path") and str(caught.value).count("\n") == 1


def lie(file: Path, text: str | bytes) -> None:
    """Replace a JSON file, or all its numbers."""
    known = json.loads(file.read_text())
    if text in ("strings", "null"):
        value = "x" if text == "strings" else None
        text = json.dumps({key: value if type(old) is int else old for key, old in known.items()})
    elif text == "utils":
        text = json.dumps(known | {"_class_name": "utils"})
    file.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize("how", ["nan", "truncated", "text", "lacking"])
def test_a_bad_generator_is_known_before_anything_is_encoded(how, tmp_path):
    model = save_dit(tmp_path / "dit", num_classes=10, channels=1)
    damage(model / "transformer" / "diffusion_pytorch_model.safetensors", how)
    arguments = (
        f"generator.path={model}",
        "protocol=smoke",
        "ablation=none",
        f"paths.outputs={tmp_path / 'out'}",
    )
    with pytest.raises(DdoqError, match="^generator.path"):
        run_here("+experiment=digits", *arguments, "trainer.accelerator=cpu")
    assert not (tmp_path / "out" / "store" / "encode").exists()
