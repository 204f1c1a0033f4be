"""Features of a network from a file, in which draws are chosen and images are compared."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import timm
import torch
from safetensors.torch import save_file

from ddoq import load_distilled
from ddoq.data.distilled import read_png
from ddoq.data.latents import StoredLatents
from ddoq.encoders import Features
from ddoq.evaluation.fidelity import fidelity
from ddoq.pipeline.store import MANIFEST
from ddoq.selections import S3
from ddoq.selections.s3 import _means
from ddoq.stages.runtime import facts
from ddoq.utils.io import read_json
from support.runs import TEACHER, TINY, run_here

NUM_DRAWS, IPC = 3, 2


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Features, Path]:
    folder = tmp_path_factory.mktemp("features")
    torch.manual_seed(0)
    weights = f"{folder}/resnet10t.safetensors"
    save_file(timm.create_model("resnet10t").state_dict(), weights)
    spaces = [
        word
        for key in ("measure.space", "selection.space")
        for word in (
            *(f"+space@{key}=features", f"{key}.model=resnet10t", f"{key}.path={weights}"),
            f"{key}.image_size=32",
        )
    ]
    run_here(
        *(*TINY, *TEACHER, "ablation=none", "ablation.strengths=[]", "baselines=none"),
        *("measure.curve=[]", f"ipc={IPC}", "measure.fidelity=true", "selection=s3"),
        *(f"selection.num_draws={NUM_DRAWS}", *spaces, f"paths.outputs={folder}/outputs"),
    )
    network = Features("resnet10t", weights, 32)
    return network, folder / "outputs" / "store"


def encoded(network: Features, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network.encode(2 * images - 1)


def train_features(store: Path) -> StoredLatents:
    """Return the training images' features: 512 numbers each."""
    (folder,) = (
        path for path in (store / "encode").glob("*/") if StoredLatents(path).shape == (512,)
    )
    return StoredLatents(folder)


def images_of(folder: Path) -> torch.Tensor:
    data = load_distilled(folder)
    return torch.stack([image for image, _, _ in data])


def test_fidelity_is_that_of_the_features_by_hand(run):
    network, store = run
    real = train_features(store).at(torch.arange(len(train_features(store))).numpy())
    told = [facts(folder) for folder in (store / "fidelity").glob("*/")]
    assert len(told) == 2  # the main arm and its twin
    by_hand = []
    for folder in (store / "label").glob("*/"):
        synthetic = encoded(network, images_of(folder))
        by_hand.append(fidelity(real, synthetic, load_distilled(folder).weights, 5))
    for name in ("frechet_distance", "precision", "recall", "coverage"):
        assert sorted(own[name] for own in told) == pytest.approx(
            sorted(own[name] for own in by_hand), rel=1e-3, abs=1e-6
        )


def test_the_chosen_draws_are_those_of_the_ascent_in_these_features(run):
    network, store = run
    (folder,) = (store / "select").glob("*/")
    table = pq.read_table(folder / "images.parquet").to_pydict()
    stored = train_features(store)
    means = []
    draws = sorted((store / "generate").glob("*/"), key=number_of)
    for draw in draws:
        names = sorted(str(path.relative_to(draw)) for path in draw.glob("*/*.png"))
        images = torch.stack([pixels(draw / name) for name in names])
        means.append(_means(encoded(network, images).unflatten(0, (10, IPC))))
    targets = torch.stack([_means(stored.of_class(label)[1]) for label in range(10)])
    chosen, objectives = S3(num_draws=NUM_DRAWS).ascend(torch.stack(means, 1), targets)
    assert table["draw"] == chosen.repeat_interleave(IPC).tolist()
    assert facts(folder)["objectives"] == pytest.approx(objectives, rel=1e-3)


def number_of(draw: Path) -> int:
    """Return which draw a ``generate`` artefact is."""
    return read_json(draw / MANIFEST)["body"]["identity"].get("draw", 0)


def pixels(path: Path) -> torch.Tensor:
    return read_png(path).float() / 255
