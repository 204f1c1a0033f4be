"""The same seed gives the same artefacts, however they are computed.

What is exact, and what is only close:

=======================  ===========================================================================
byte for byte            with latents that are pixels, everything: for other workers, another hash
                         seed, another folder of outputs and another order of the points of a sweep;
                         for another batch size, all but pixels
within 1/255             pixels of generated images, for another batch size (measured: equal, or a
                         few off by one)
within 1e-6              latents of a VAE and centroids made of them, relative to the largest, for
                         another batch size: kernels add up in another order (measured: 4.9e-7 and
                         2.6e-7)
within 1e-3              soft labels, relative to the largest, for another batch size: 2e-7 by
                         themselves, 7.4e-5 where a pixel is off by one
one of the nearest       the ``source`` of a centroid of a VAE's latents, where rounding decides:
                         the mean of two latents is as near to the one as to the other
not promised             equal bits for another device or version of torch
=======================  ===========================================================================

Tested elsewhere: any number of processes (``test_cores``), a killed run (``test_end_to_end``,
``test_imagenet``), one or two processes and batches of a DiT of the published class
(``test_imagenet``), a chunk of the index with workers (``test_datasets``), an interrupted fit
(``test_students``) and relabelling (``test_protocols``), and the same generator for a quantizer
(``test_quantizers``).
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load

from support.processes import new_python
from support.runs import TINY, artefacts, run_here

SMALL = (
    *TINY,
    "baselines=distilled",
    "ablation=none",
    "measure.curve=[1,3]",
    "dataset.train_per_class=30",
    "ipc=3",
    "generator.fit.num_steps=10",
    "protocol.num_seeds=1",
    "protocol.num_steps=40",
)
#: Latents that a network makes, and labels that another one gives.
LEARNED = (
    "baselines=none",
    "encoder=vae",
    "encoder.fit.num_steps=10",
    "encoder.fit.block_out_channels=[8,16]",
    "generator.fit.patch_size=1",
    "protocol.labels=fixed",
    "run.until=label",
)
STAGES = ("index", "encode", "quantize", "curve", "fit_generator", "generate", "label", "evaluate")


def files_and_facts(outputs: Path) -> dict[str, object]:
    """Return the bytes of every file of all artefacts,
    and the facts of every manifest but what they cost.
    """
    manifests = {
        path: json.loads(path.read_text()) for path in (outputs / "store").glob("*/*/manifest.json")
    }
    facts = {
        str(path.parent.relative_to(outputs)): manifest["facts"]
        for path, manifest in manifests.items()
    }
    assert {name.split("/")[1] for name in facts} >= {
        "index",
        "encode",
        "quantize",
        "generate",
        "label",
    }
    return artefacts(outputs, *STAGES) | facts


def differing(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """Return the names of what is not the same, the artefact's first."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, object]:
    outputs = tmp_path_factory.mktemp("plain")
    run_here(*SMALL, f"paths.outputs={outputs}")
    return files_and_facts(outputs)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(["trainer.batch_size=1"], marks=pytest.mark.slow),
        ["trainer.batch_size=7"],
        ["trainer.num_workers=2"],
        pytest.param([], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_every_artefact_is_the_same_however_it_is_computed(plain, how, tmp_path):
    run_here(*SMALL, *how, f"paths.outputs={tmp_path}")
    for name in differing(plain, files_and_facts(tmp_path)):
        assert name.endswith(".png"), name
        ours = np.asarray(Image.open(tmp_path / name)).astype(int)
        theirs = np.asarray(Image.open(io.BytesIO(plain[name]))).astype(int)
        assert "batch_size" in how[0] and np.abs(ours - theirs).max() <= 1, name


def test_every_artefact_is_the_same_in_another_process_with_another_hash_seed(plain, tmp_path):
    """Bug: a set or the built-in ``hash`` decides the order of something."""
    done = new_python(
        *SMALL,
        "baselines=none",
        "run.until=label",
        f"paths.outputs={tmp_path}",
        PYTHONHASHSEED="12345",
    )
    assert done.returncode == 0, done.stderr
    found = files_and_facts(tmp_path)
    assert differing({name: plain[name] for name in found}, found) == []


def test_points_of_a_sweep_may_come_in_any_order(tmp_path):
    """Bug: what points share depends on which of them made it, or a global generator runs on."""
    points = ["ipc=2", "ipc=3", "generator.strength=0.4"]
    for folder, order in (("a", points), ("b", points[::-1])):
        for point in order:
            run_here(
                *SMALL,
                "baselines=none",
                point,
                "run.until=label",
                f"paths.outputs={tmp_path / folder}",
            )
    assert differing(files_and_facts(tmp_path / "a"), files_and_facts(tmp_path / "b")) == []


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    outputs = tmp_path_factory.mktemp("learned")
    run_here(*SMALL, *LEARNED, f"paths.outputs={outputs}")
    return outputs


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_latents_and_soft_labels_are_close_for_any_batch_size(learned, size, tmp_path):
    run_here(*SMALL, *LEARNED, f"trainer.batch_size={size}", f"paths.outputs={tmp_path}")
    ours, theirs = files_and_facts(tmp_path), files_and_facts(learned)
    assert ours.keys() == theirs.keys()
    compared = set()
    for name in differing(ours, theirs):
        if name.endswith(".safetensors"):
            compared |= {name.split("/")[1]}
            assert_close(load(ours[name]), load(theirs[name]), 1e-3 if "targets" in name else 1e-6)
        elif name.endswith(".parquet"):
            tables = [pq.read_table(io.BytesIO(part[name])).to_pydict() for part in (ours, theirs)]
            assert [key for key in tables[0] if tables[0][key] != tables[1][key]] == ["source"], (
                name
            )
        elif name.endswith(".png"):
            images = [
                np.asarray(Image.open(io.BytesIO(part[name]))).astype(int)
                for part in (ours, theirs)
            ]
            assert np.abs(images[0] - images[1]).max() <= 1, name
        else:
            assert isinstance(ours[name], dict), name  # facts: means and distortions
    assert compared <= {"encode", "quantize", "label"}


def assert_close(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], within: float
) -> None:
    """Assert that integers are equal, sources apart, and that floats are close,
    relative to the largest.
    """
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {"sources"}:
        if ours[name].is_floating_point():
            assert (ours[name] - theirs[name]).abs().max() <= within * theirs[name].abs().max(), (
                name
            )
        else:
            assert torch.equal(ours[name], theirs[name]), name
