"""The probe: a precision is judged on a few real images before anything is computed with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel

from ddoq.data.tables import open_parquet
from ddoq.errors import StageError
from ddoq.experiment import Experiment, Models
from ddoq.experiment.trials import probes
from ddoq.pipeline.graph import Node
from support.runs import DECODED, SHARED, composed, run_here
from support.tiny_models import save_dit, save_vae

SMALL = (*DECODED, "baselines=none", "ipc=1")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Sixteen real photos of each of two classes, 64 pixels wide, and a few to test on."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real data sets in {SHARED}")
    root = tmp_path_factory.mktemp("photos")
    source = open_parquet(SHARED / "imagenette128", "image", "label")
    for label in (0, 1):
        for i, number in enumerate(np.flatnonzero(source.labels == label)[:20]):
            folder = root / ("train" if i < 16 else "test") / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            source.read(int(number)).convert("RGB").resize((64, 64)).save(folder / f"{i}.png")
    return root


def run(photos: Path, outputs: Path, *overrides: str) -> Path:
    of_photos = (
        "dataset=image_folder",
        f"dataset.root={photos}",
        "dataset.image_size=64",
        "student.depth=2",
    )
    return run_here(
        *SMALL, *of_photos, "protocol.image_size=16", *overrides, f"paths.outputs={outputs}"
    )


def verdicts(outputs: Path) -> list[dict]:
    return [
        json.loads(file.read_text())["facts"]
        for file in outputs.glob("store/probe/*/manifest.json")
    ]


def finished_stages(outputs: Path) -> set[str]:
    return {file.parent.parent.name for file in outputs.glob("store/*/*/manifest.json")}


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory) -> Path:
    """A VAE whose decoder's inner layer passes 65,504, as that of Stable Diffusion XL does."""
    folder = save_vae(tmp_path_factory.mktemp("vae"))
    vae = AutoencoderKL.from_pretrained(folder)
    with torch.no_grad():
        vae.decoder.mid_block.resnets[1].conv2.weight *= 1e7
    vae.save_pretrained(folder)
    return folder


def test_float16_that_overflows_is_refused_before_anything_is_computed_and_the_remedy_works(
    photos, overflowing, tmp_path, capsys
):
    arguments = ("encoder=vae", f"encoder.path={overflowing}")
    with pytest.raises(
        StageError, match=r"^encoder\.precision: in float16, 16 of 16 outputs .* NaN or inf"
    ) as caught:
        run(photos, tmp_path, *arguments, "encoder.precision=float16")
    assert caught.value.remedy == "set encoder.precision=bfloat16"
    assert finished_stages(tmp_path) == {"index", "audit"}

    folder = run(photos, tmp_path, *arguments, caught.value.remedy.removeprefix("set "))
    (found,) = verdicts(tmp_path)
    assert (found["precision"], found["device"], found["num_images"]) == ("bfloat16", "cpu", 16)
    assert 35 < found["agreement_db"] < 80
    # random weights: a network that is no autoencoder is said to be none, loudly,
    # and is not refused
    out = capsys.readouterr().out
    assert out.count(f"encoder: {found['psnr_db']:.1f} dB on 16 real images, bfloat16") == 1
    assert (
        found["psnr_db"] < found["constant_db"]
        and "no autoencoder of such images; check encoder.path" in out
    )
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert {row["encoder_precision"] for row in rows} == {"bfloat16"}
    assert f"psnr_db {found['psnr_db']}" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("encoder", "psnr"),
    [("taef2", 25), ("vae encoder.path=vae_taesd encoder.storage=float16", 20)],
)
def test_real_autoencoders_pass_in_their_precision_and_storage(
    photos, tmp_path, encoder, psnr, capsys
):
    name, *options = encoder.split()
    run(photos, tmp_path, f"encoder={name}", *options, f"paths.models={SHARED}", "run.until=probe")
    (found,) = verdicts(tmp_path)
    assert psnr - 5 < found["psnr_db"] < psnr + 8 and found["psnr_db"] > found["constant_db"] + 7
    assert found["precision"] == "float32" and found["agreement_db"] is None
    assert "no autoencoder" not in capsys.readouterr().out


def test_storage_that_overflows_is_refused_with_one_that_does_not(photos, tmp_path):
    vae = AutoencoderKL.from_pretrained(save_vae(tmp_path / "vae"))
    vae.register_to_config(scaling_factor=1e7)
    vae.save_pretrained(tmp_path / "vae")
    arguments = (
        "encoder=vae",
        f"encoder.path={tmp_path / 'vae'}",
        "encoder.storage=float16",
        "run.until=encode",
    )
    with pytest.raises(StageError, match="NaN or infinite") as caught:
        run(photos, tmp_path / "out", *arguments)
    assert caught.value.remedy == "set encoder.storage=float32"
    run(photos, tmp_path / "out", *arguments, "encoder.storage=float32")


@pytest.fixture
def overflowing_dit(tmp_path) -> Path:
    folder = save_dit(tmp_path / "dit", num_classes=10, channels=1)
    network = DiTTransformer2DModel.from_pretrained(folder / "transformer")
    with torch.no_grad():
        # The next block's norm makes it small again.
        network.transformer_blocks[0].ff.net[2].weight *= 1e7
    network.save_pretrained(folder / "transformer")
    return folder


def test_a_generator_s_precision_is_tried_before_the_latents(overflowing_dit, tmp_path):
    arguments = (
        "+experiment=digits",
        f"generator.path={overflowing_dit}",
        "protocol=smoke",
        "ablation=none",
    )
    arguments += (
        "baselines=none",
        f"paths.outputs={tmp_path / 'out'}",
        "trainer.accelerator=cpu",
        "run.until=encode",
    )
    with pytest.raises(
        StageError, match=r"^generator\.precision: in float16, 8 of 8 outputs"
    ) as caught:
        run_here(*arguments, "generator.precision=float16")
    assert caught.value.remedy == "set generator.precision=bfloat16"
    assert finished_stages(tmp_path / "out") == {"index", "audit"}
    run_here(*arguments, "generator.precision=bfloat16")
    (found,) = verdicts(tmp_path / "out")
    assert found["precision"] == "bfloat16" and found["agreement_db"] > 20


def probes_of(experiment: Experiment) -> list[Node]:
    return probes(experiment.nodes, experiment.entries)


def experiment(*overrides: str) -> Experiment:
    return Experiment(composed(*overrides), "data", Models([]))


def test_what_has_no_network_or_fits_it_later_has_no_probe():
    for overrides in ((), ("generator=decode",), ("generator.precision=bfloat16",)):
        assert not probes_of(experiment(*overrides))
    fitted = experiment("encoder=vae")
    (probe,) = probes_of(fitted)
    assert set(probe.inputs) == {"index", "encoder"}
    for until in ("index", "check_teacher", "encode", "report"):
        keys = {node.key for node in fitted.targets(until)}
        assert (probe.key in keys) == (until != "index"), until
    needed = {node.key for target in fitted.targets("report") for node in target.inputs.values()}
    assert probe.key not in needed  # nobody's input: no other key depends on it


def test_arms_that_differ_in_sampling_share_a_probe_and_precisions_do_not(tmp_path):
    save_dit(tmp_path, num_classes=10, channels=1)
    arguments = ("+experiment=digits", f"generator.path={tmp_path}")
    assert len(probes_of(experiment(*arguments))) == 1  # strengths of the ablation
    (other,) = probes_of(experiment(*arguments, "generator.precision=bfloat16"))
    assert other.key not in {node.key for node in probes_of(experiment(*arguments))}
