"""The stages that quantize: classes in parallel, in other spaces, from a stream,
from a common budget.
"""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from ddoq.data.latents import LatentWriter, StoredLatents
from ddoq.encoders import Features
from ddoq.errors import ConfigError, DataError
from ddoq.experiment import Experiment, Models
from ddoq.job import run_job
from ddoq.pipeline.graph import Node
from ddoq.quantizers import KMeans
from ddoq.quantizers.codebook import ClassCodebooks
from ddoq.stages import curve, quantize
from ddoq.stages.runtime import Runtime
from ddoq.utils.io import read_json
from ddoq.utils.seeding import item_generator
from support.runs import composed

RUNTIME = Runtime(dataset=None, models=Models([]), accelerator="cpu")


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """The digits 0 to 3 as an ``encode`` artefact of several shards; 3 is a class of 20."""
    folder, digits = tmp_path_factory.mktemp("encode"), load_digits()
    kept = np.flatnonzero(
        (digits.target < 3) | ((digits.target == 3) & (np.cumsum(digits.target == 3) <= 20))
    )
    writer = LatentWriter(folder, digits.target[kept], shard_size=100)
    writer.add(torch.arange(len(kept)), torch.from_numpy(digits.images[kept]).float()[:, None])
    writer.finish()
    return folder


def node(stage, *overrides: str) -> Node:
    """The main arm's node of a stage, as the experiment makes it."""
    experiment = Experiment(composed("ipc=5", *overrides), "data", Models([]))
    if stage is curve:
        return experiment.curves[experiment.main_name]
    return next(entry for entry in experiment.entries if entry.arm == experiment.main_name).quantize


def run(stage, encoded, folder, *overrides: str) -> dict:
    folder.mkdir(exist_ok=True)
    return stage.run(node(stage, *overrides), {"encode": encoded}, folder, RUNTIME)


def test_every_class_gets_what_it_gets_alone(encoded, tmp_path):
    facts = run(quantize, encoded, tmp_path)
    points, latents = ClassCodebooks.load(tmp_path / quantize.CODEBOOK), StoredLatents(encoded)
    assert facts["num_points"] == 20 and len(facts["per_class"]) == 4
    for label in range(4):
        positions, of_class = latents.of_class(label)
        alone = KMeans(5).fit(of_class, item_generator(0, "quantize", label))
        mine = points.labels == label
        assert torch.equal(points.latents[mine], alone.centroids)
        assert points.sources[mine].tolist() == positions[alone.nearest].tolist()
        assert facts["per_class"][label]["distortion"] == alone.distortion
    sizes = [row["num"] for row in facts["per_class"]]
    mean = np.average([row["distortion"] for row in facts["per_class"]], weights=sizes)
    assert facts["distortion"] == pytest.approx(mean) and facts["w2_squared"] == pytest.approx(
        mean, rel=1e-5
    )
    assert facts["distortion"] < facts["held_out_distortion"] < facts["variance"]
    assert list(tmp_path.iterdir()) == [tmp_path / quantize.CODEBOOK]


def test_a_barycenter_has_its_own_masses(encoded, tmp_path):
    facts = run(quantize, encoded, tmp_path, "quantizer=barycenter")
    assert (
        facts["w2_squared"] == pytest.approx(facts["w2_squared_uniform"])
        and facts["w2_squared"] > facts["distortion"]
    )
    assert facts["effective_size"] == pytest.approx(5) and facts["dispersion"] == pytest.approx(0)


def test_clvq_never_holds_a_class(encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(
        StoredLatents, "of_class", lambda *_: pytest.fail("the class was read at once")
    )
    facts = run(quantize, encoded, tmp_path, "quantizer=clvq")
    counts = ClassCodebooks.load(tmp_path / quantize.CODEBOOK).counts
    assert counts.sum() == len(StoredLatents(encoded)) and facts["w2_squared"] == pytest.approx(
        facts["distortion"], rel=1e-5
    )


def test_a_common_budget_is_spent_to_the_last_point_and_lowers_the_error(encoded, tmp_path):
    equal = run(quantize, encoded, tmp_path / "equal")
    shared = run(quantize, encoded, tmp_path / "error", "allocation=error")
    numbers = [row["num_centroids"] for row in shared["per_class"]]
    assert sum(numbers) == shared["num_points"] == 20 and min(numbers) >= 1
    assert numbers[3] < min(numbers[:3])  # the class of 20 latents
    assert shared["distortion"] < equal["distortion"]


def test_weights_of_classes_with_different_numbers_of_points_add_up_to_the_same(tmp_path):
    small = [
        "dataset.train_per_class=40",
        "generator=decode",
        "measure.curve=[]",
        "baselines=none",
        "ablation=none",
    ]
    config = composed(
        "ipc=3", "allocation=error", "run.until=label", f"paths.outputs={tmp_path}", *small
    )
    run_job(config, tmp_path / "run")
    tables = [
        pq.read_table(path).to_pandas() for path in tmp_path.glob("store/label/*/metadata.parquet")
    ]
    assert tables
    for rows in tables:
        sums, numbers = rows.groupby("label")["weight"].sum(), rows.groupby("label").size()
        assert len(rows) == 30 and numbers.nunique() > 1
        assert sums.to_numpy() == pytest.approx(np.full(10, 3.0), rel=1e-5)


def test_curve_measures_every_k_that_all_classes_have(encoded, tmp_path):
    facts = run(curve, encoded, tmp_path, "measure.curve=[1,2,5,10,50]")
    # Class 3 has 20 latents.
    assert [point["num_centroids"] for point in facts["points"]] == [1, 2, 5, 10]
    assert facts["points"][0]["distortion"] == pytest.approx(
        facts["points"][0]["variance"], rel=1e-5
    )
    values = [point["w2_squared"] for point in facts["points"]]
    assert values == sorted(values, reverse=True)
    assert facts["slope"] < 0 and facts["dimension"] == pytest.approx(-1 / facts["slope"])
    assert {row["num_centroids"] for row in facts["rows"] if row["label"] == 0} == {1, 2, 5, 10, 50}
    alone = run(quantize, encoded, tmp_path / "quantize")
    at_ipc = next(point for point in facts["points"] if point["num_centroids"] == 5)
    assert at_ipc["distortion"] == pytest.approx(alone["distortion"])


def test_another_space_has_another_key_and_other_cells(encoded, tmp_path):
    plain, pca = node(quantize), node(quantize, "space=pca", "space.num_components=2")
    assert (
        plain.key != pca.key
        and plain.key == node(quantize, "weighting=power", "trainer.batch_size=7").key
    )
    here = run(quantize, encoded, tmp_path / "a")
    there = run(quantize, encoded, tmp_path / "b", "space=pca", "space.num_components=2")
    assert here["distortion"] < there["distortion"] < there["variance"]


def test_features_of_a_local_timm_model_are_a_space(encoded, tmp_path):
    import timm

    weights = tmp_path / "model.safetensors"
    save_file(timm.create_model("resnet10t").state_dict(), weights)
    overrides = [
        "space=features",
        "space.model=resnet10t",
        f"space.path={weights}",
        "space.image_size=32",
    ]
    wanted = node(quantize, *overrides)
    identity = wanted.inputs["features"].identity
    assert (
        "path" not in identity["encoder"]
        and wanted.inputs["encode"].key != wanted.inputs["features"].key
    )
    encoder = Features("resnet10t", str(weights), 32)
    latents = StoredLatents(encoded)
    images = (latents.at(np.arange(len(latents))) / 8 - 1).clamp(-1, 1)
    features = encoder.encode(images)
    assert features.shape == (len(images), 512)
    (tmp_path / "features").mkdir()
    writer = LatentWriter(tmp_path / "features", latents.labels, 100)
    writer.add(torch.arange(len(features)), features)
    writer.finish()
    (tmp_path / "out").mkdir()
    inputs = {"encode": encoded, "features": tmp_path / "features"}
    facts = quantize.run(wanted, inputs, tmp_path / "out", RUNTIME)
    points = ClassCodebooks.load(tmp_path / "out" / quantize.CODEBOOK)
    assert points.latents.shape == (20, 1, 8, 8) and facts["distortion"] < facts["variance"]


def test_features_that_cannot_be_had_are_named_with_the_place_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="space.path: there is no file"):
        node(quantize, "space=features", f"space.path={tmp_path}/none.safetensors")
    with pytest.raises(ConfigError, match="space.model: timm has no 'resnet10x'"):
        Features("resnet10x")
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(DataError, match="space.path: the weights of resnet10t do not load"):
        Features("resnet10t", str(tmp_path / "bad.safetensors"))


def test_what_a_killed_run_finished_is_not_computed_again(encoded, tmp_path):
    """A class that is on disk is taken as it is."""
    run(quantize, encoded, tmp_path / "whole")
    whole = ClassCodebooks.load(tmp_path / "whole" / quantize.CODEBOOK)
    part = tmp_path / "part"
    part.mkdir()
    mine = whole.labels == 2
    marked = ClassCodebooks(
        latents=whole.latents[mine] + 1,
        labels=whole.labels[mine],
        index=whole.index[mine],
        counts=whole.counts[mine],
        sources=whole.sources[mine],
    )
    marked.save(part / "class-00002.safetensors", {})
    facts = read_json_row(tmp_path, encoded)
    (part / "class-00002.json").write_text(facts)
    run(quantize, encoded, part)
    resumed = ClassCodebooks.load(part / quantize.CODEBOOK)
    assert torch.equal(resumed.latents[mine], whole.latents[mine] + 1)
    assert torch.equal(resumed.latents[~mine], whole.latents[~mine])


def read_json_row(tmp_path, encoded) -> str:
    """The facts of class 2, as the stage writes them."""
    from ddoq.stages.classes import ClassQuantizer

    wanted = node(quantize)
    classes = ClassQuantizer(wanted.identity, {"encode": encoded}, RUNTIME)
    quantize._quantize_class(classes, 2, 5, 0, tmp_path / "class")
    assert read_json(tmp_path / "class.json")["num_centroids"] == 5
    return (tmp_path / "class.json").read_text()
