"""Guidances on the published classes of models: Stable Diffusion and DiT by ImageNet's classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ddoq.data.label_space import LabelSpace
from ddoq.encoders import VAE
from ddoq.errors import ConfigError
from ddoq.generators import DiT, LatentDiffusion, StableDiffusion
from ddoq.guidances import DMGD, UAG, CoDA, Guidance, ManifoldGD
from support.steering import some_cells, some_points
from support.tiny_models import save_dit, save_stable_diffusion

IMAGENET = LabelSpace.from_classes(["n01440764", "n02102040", "n03888257"])
OPTIONS = {"start": "noise", "strength": 1.0, "num_steps": 10, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return save_stable_diffusion(folder / "sd"), save_dit(folder / "dit")


def guided(folders, kind: type[LatentDiffusion], *guidances: Guidance) -> LatentDiffusion:
    """Return a model whose latents a VAE decodes to 64 pixels."""
    stable_diffusion, dit = (str(folder) for folder in folders)
    given = {"encoder": VAE(stable_diffusion), "label_space": IMAGENET, "cells": some_cells(3)}
    if kind is DiT:
        return DiT(path=dit, classes="imagenet", guidances=guidances, **given, **OPTIONS)
    return StableDiffusion(path=stable_diffusion, guidances=guidances, **given, **OPTIONS)


class Brightness(nn.Module):
    """A classifier of two classes: dark and bright."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        mean = images.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)


@pytest.mark.parametrize("kind", [DiT, StableDiffusion])
@pytest.mark.parametrize(
    "guidance",
    [DMGD(scale=50.0, semantic=False), CoDA(), ManifoldGD(), UAG(teacher=Brightness(), scale=50.0)],
    ids=lambda guidance: type(guidance).__name__,
)
def test_they_steer_both_kinds_of_models(folders, kind, guidance):
    points = some_points(3)
    plain = guided(folders, kind).generate(points)
    steered = guided(folders, kind, guidance).generate(points)
    assert steered.shape == (3, 3, 64, 64) and not torch.equal(plain, steered)


def test_embedded_classes_are_those_of_imagenet_and_stable_diffusion_has_none(folders):
    points, guidance = some_points(3), DMGD(scale=0.0)
    plain = guided(folders, DiT).sample(points)
    assert not torch.allclose(plain, guided(folders, DiT, guidance).sample(points), atol=1e-4)
    with pytest.raises(ConfigError, match="a StableDiffusion has none\n.*semantic=false"):
        guided(folders, StableDiffusion, guidance).sample(points)
