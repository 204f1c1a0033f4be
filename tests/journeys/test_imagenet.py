"""The ImageNet experiments: composed and planned as they are, run through as tiny twins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddoq.config.checks import check
from ddoq.data.distilled import load_distilled
from ddoq.errors import ConfigError, DataError
from ddoq.utils.io import read_json
from support.processes import start
from support.runs import ROOT, artefacts, composed, run_here
from support.tiny_models import save_dit, save_vae
from support.twins import EXPERIMENTS, overrides, save_images, save_models, wnids_of

STEPS = ("encode", "generate", "label")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return save_images(tmp_path_factory.mktemp("imagenet"), sorted(wnids_of("imagenette_dit")))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_with_the_published_models_at_ipc_10(experiment):
    config = composed(f"+experiment={experiment}")
    check(config)
    data, model = experiment.rsplit("_", 1)
    size, paths = {
        "dit": (256, ["stabilityai/sd-vae-ft-ema", "facebook/DiT-XL-2-256"]),
        "sd": (512, ["stable-diffusion-v1-5/stable-diffusion-v1-5"] * 2),
    }[model]
    assert (config["dataset"]["classes"], config["dataset"]["image_size"], config["ipc"]) == (
        data,
        size,
        10,
    )
    assert [config["encoder"]["path"], config["generator"]["path"]] == paths
    assert config["generator"].get("classes", "imagenet") == "imagenet"
    assert (
        composed(f"+experiment={experiment}", "ipc=50", "ablation=none")["ablation"]["strengths"]
        == []
    )


def test_a_plan_needs_the_data_but_no_weights(images, tmp_path, capsys):
    arguments = [
        "+experiment=imagenette_dit",
        f"dataset.root={images}",
        f"paths.outputs={tmp_path}",
    ]
    run_here(*arguments, f"paths.models={tmp_path}", "run.plan_only=true")
    out = capsys.readouterr().out
    assert "generate" in out and "miss" in out and not (tmp_path / "store" / "index").exists()


@pytest.mark.parametrize("experiment", ["imagenette_dit", "imagenette_sd"])
def test_twin_walks_the_whole_corridor(experiment, models, images, tmp_path):
    folder = run_here(*overrides(experiment, models, images, tmp_path))
    data = load_distilled(folder / "distilled")
    # labels follow the published order of the classes, whatever the order of the folders
    assert data.class_names[:3] == ["tench", "English springer", "cassette player"]
    assert data.metadata["wnid"][data.labels == 1].tolist() == ["n02102040"] * 2
    assert len(data) == 20 and data[0][0].shape == (3, 64, 64)
    (encode,) = (tmp_path / "store" / "encode").glob("*/manifest.json")
    assert read_json(encode)["facts"]["storage"] == "float16" and read_json(encode)["facts"][
        "shape"
    ] == [4, 8, 8]
    report = (folder / "report.html").read_text()
    assert "original ILSVRC2012 folders" in report and "12,894" in report


@pytest.mark.slow
@pytest.mark.parametrize(
    "experiment", ["imagewoof_dit", "imagenet100_dit", "imagenet1k_dit", "imagenet1k_sd"]
)
def test_twin_of_every_other_experiment_walks_the_corridor(experiment, models, tmp_path):
    wnids = wnids_of(experiment)
    folder = save_images(tmp_path / "images", wnids, num_train=2, num_test=1)
    run = run_here(
        *overrides(experiment, models, folder, tmp_path / "outputs"), "ipc=1", "baselines=none"
    )
    data = load_distilled(run / "distilled")
    assert list(dict.fromkeys(data.metadata["wnid"])) == wnids


@pytest.mark.slow  # a CPU takes its time over half precision
def test_twins_run_in_the_precision_that_the_experiments_state(models, images, tmp_path):
    for experiment in ("imagenette_dit", "imagenette_sd"):
        shrunk = overrides(experiment, models, images, tmp_path / experiment)
        folder = run_here(
            *(argument for argument in shrunk if "precision" not in argument), "baselines=none"
        )
        assert len(load_distilled(folder / "distilled")) == 20


@pytest.mark.slow  # compiling takes half a minute
def test_compiled_networks_make_the_same_images(models, images, tmp_path):
    pictures = []
    for flag in ("false", "true"):
        shrunk = overrides("imagenette_dit", models, images, tmp_path / flag)
        folder = run_here(*shrunk, "baselines=none", f"trainer.compile={flag}")
        pictures.append(
            np.stack(
                [np.asarray(Image.open(p)) for p in sorted((folder / "distilled").rglob("*.png"))]
            )
        )
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 2


def test_images_do_not_depend_on_the_batch(models, images, tmp_path):
    pictures = []
    for size in (1, 7):
        shrunk = overrides("imagenette_dit", models, images, tmp_path / str(size))
        folder = run_here(*shrunk, f"trainer.batch_size={size}")
        pictures.append(
            np.stack(
                [np.asarray(Image.open(p)) for p in sorted((folder / "distilled").rglob("*.png"))]
            )
        )
    assert pictures[0].std() > 5
    # The last bit of a sum, rounded to 8 bits.
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 1


@pytest.fixture
def one_thread():
    """One thread per process, as torchrun gives: sums are added up in the same order then."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    torch.set_num_threads(threads)


def torchrun(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "ddoq.run", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400
    )


def test_two_processes_make_what_one_makes(models, images, tmp_path, one_thread):
    def arguments(name: str) -> list[str]:
        few = ["baselines=none", "trainer.batch_size=3"]
        return [*overrides("imagenette_dit", models, images, tmp_path / name), *few]

    done = torchrun(arguments("two"), one_thread)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("report     ") == 1  # one of them speaks
    run_here(*arguments("one"))
    one, two = (artefacts(tmp_path / name, "index", "quantize", *STEPS) for name in ("one", "two"))
    assert len(one) > 40 and one == two


@pytest.mark.slow
def test_a_process_that_fails_stops_the_others_with_its_reason(
    models, images, tmp_path, one_thread
):
    broken = tmp_path / "models"
    shutil.copytree(models, broken)
    (broken / "stabilityai" / "sd-vae-ft-ema" / "diffusion_pytorch_model.safetensors").write_bytes(
        b"nothing"
    )
    done = torchrun(overrides("imagenette_dit", broken, images, tmp_path / "out"), one_thread)
    assert done.returncode != 0 and "ddoq: error: encoder.path: the weights of" in done.stderr


@pytest.mark.parametrize("stage", [pytest.param("encode", marks=pytest.mark.slow), "generate"])
def test_kill_in_the_middle_and_the_same_command_finishes_the_same(
    stage, models, images, tmp_path, one_thread
):
    def arguments(name: str) -> list[str]:
        few = [
            "baselines=none",
            "trainer.batch_size=1",
            "generator.num_steps=10",
            "run.until=generate",
        ]
        return [*overrides("imagenette_dit", models, images, tmp_path / name), *few]

    process = start(*arguments("killed"), folder=tmp_path)
    store = tmp_path / "killed" / "store" / stage
    started = {
        "encode": lambda: any(store.glob("[!.]*")),
        "generate": lambda: any(store.rglob("*.png")),
    }[stage]
    deadline = time.monotonic() + 120
    while not started() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.is_alive(), "it ended before it could be killed"
    process.kill()
    process.join()
    assert not all((folder / "manifest.json").exists() for folder in store.glob("[!.]*"))
    for name in ("killed", "whole"):
        run_here(*arguments(name))
    assert artefacts(tmp_path / "killed", *STEPS) == artefacts(tmp_path / "whole", *STEPS)


def test_a_foreign_checkpoint_with_other_latents_is_refused_before_anything_is_read(
    models, images, tmp_path
):
    save_dit(tmp_path / "wide", side=16)
    save_dit(tmp_path / "deep", channels=8)
    save_vae(tmp_path / "shallow", halvings=2)
    arguments = overrides("imagenette_dit", models, images, tmp_path / "out")
    for foreign, message, remedy in (
        (
            f"generator.path={tmp_path}/wide",
            "latents of 16×16.*makes 8×8",
            "dataset.image_size to 128",
        ),
        (
            f"generator.path={tmp_path}/deep",
            "takes latents of 8 channels, .* makes 4",
            "the encoder that the generator was trained with",
        ),
        (f"encoder.path={tmp_path}/shallow", "makes 16×16", "dataset.image_size to 32"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            run_here(*arguments, foreign)
        assert remedy in caught.value.remedy
    assert not (tmp_path / "out" / "store").exists()
    # a checkpoint whose classes are not ImageNet's is found out as soon as the classes are known
    save_dit(tmp_path / "ten", num_classes=10)
    with pytest.raises(ConfigError, match="class number 701, but .* knows only 10"):
        run_here(*arguments, f"generator.path={tmp_path}/ten")
    assert not list((tmp_path / "out" / "store").glob("encode/*/*"))


def test_the_foreign_checkpoint_of_another_shape_runs_where_it_fits(models, images, tmp_path):
    save_dit(tmp_path / "wide", side=16)
    arguments = overrides("imagenette_dit", models, images, tmp_path / "out")
    folder = run_here(
        *arguments, f"generator.path={tmp_path}/wide", "dataset.image_size=128", "baselines=none"
    )
    assert load_distilled(folder / "distilled")[0][0].shape == (3, 128, 128)


def test_missing_weights_are_named_before_anything_is_computed(images, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nobody listens there
    arguments = overrides("imagenette_sd", tmp_path / "none", images, tmp_path / "out")
    with pytest.raises(
        DataError, match=r"stable-diffusion-v1-5 \(4.3 GB, CreativeML OpenRAIL-M\)"
    ) as caught:
        run_here(*arguments)
    assert "ddoq fetch" in caught.value.remedy and not list(
        (tmp_path / "out").glob("store/index/*/*")
    )


def test_features_of_another_network_choose_the_latents_to_decode(models, images, tmp_path):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "resnet10t.safetensors")
    arguments = overrides("imagenette_dit", models, images, tmp_path / "out")
    space = [
        "space=features",
        "space.model=resnet10t",
        f"space.path={tmp_path}/resnet10t.safetensors",
    ]
    # Decoding has none.
    arguments = [argument for argument in arguments if not argument.startswith("generator.")]
    folder = run_here(
        *arguments,
        *space,
        "space.image_size=32",
        "space.representative=nearest",
        "generator=decode",
    )
    assert len(load_distilled(folder / "distilled")) == 20
