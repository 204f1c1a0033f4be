"""Methods that optimise images: what all promise, closed forms, the folder they write."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from yaml import safe_load

from ddoq.config.methods import resolved
from ddoq.data.builtin import Digits
from ddoq.data.distilled import TrainingSet, load_distilled, read_png, write_metadata
from ddoq.data.image_set import ImageSet, write_image_set
from ddoq.distillers import DC, DM, IDM, M3D, Distiller
from ddoq.distillers.features import class_features, graph_bytes, settled
from ddoq.engine.distill import network_bytes, require_memory, step_bytes
from ddoq.engine.student import Normalize, ViewMaker
from ddoq.errors import ConfigError, DataError, StageError, StoreError
from ddoq.evaluation.dsa import OPERATIONS, draw_dsa, siamese
from ddoq.evaluation.protocol import Protocol
from ddoq.pipeline.graph import Node
from ddoq.quantizers import ClassCodebooks
from ddoq.stages import distill, index
from ddoq.stages.models import Models
from ddoq.stages.runtime import Runtime
from ddoq.utils.io import write_json
from ddoq.utils.seeding import item_generator, item_seed
from support.distilling import (
    Recorded,
    digits_task,
    fitted,
    loss_of,
    named,
    photographs_task,
    slope_of,
)
from support.runs import ROOT

DSA = "color_crop_cutout_scale_rotate"
#: Networks join and, from step 9 on, leave.
QUEUE = {"every": 3, "most_networks": 5, "train_steps": 1}
#: One entry for each method, with as few steps as show that it works.
ALL = [
    DM(num_steps=20, learning_rate=1.0, dsa=DSA, batch_size=64),
    DC(num_steps=20, learning_rate=10.0, dsa=DSA, batch_size=64, loops=3, epochs=2),
    M3D(num_steps=20, learning_rate=50.0, dsa=DSA, batch_size=64, steps_per_network=3),
    IDM(num_steps=20, learning_rate=1.0, dsa=DSA, batch_size=64, cross_entropy=0.0, **QUEUE),
]


# --- what all of them promise --------------------------------------------------------------------


@pytest.mark.parametrize("method", ALL, ids=named)
def test_the_loss_falls_and_the_same_seed_gives_the_same_bytes(method):
    first, second = (fitted(method, digits_task(method)) for _ in range(2))
    _, losses = first.history(4)
    assert losses[-1] < 0.8 * losses[0]
    assert torch.equal(first.task.pixels(), second.task.pixels())
    assert torch.equal(first.losses, second.losses) and first.losses.min() > 0
    other = fitted(method, digits_task(method, seed=1))
    assert not torch.equal(first.task.pixels(), other.task.pixels())


@pytest.mark.parametrize("method", ALL, ids=named)
@pytest.mark.parametrize("dies_at", [1, 10, None])  # in the first part, between parts, at the end
def test_cut_and_resumed_equals_undisturbed(method, dies_at, tmp_path):
    whole = fitted(method, digits_task(method))
    checkpoint = tmp_path / "last.ckpt"
    if dies_at is None:
        fitted(method, digits_task(method), checkpoint)
    else:
        with pytest.raises(KeyError):
            fitted(method, digits_task(method), checkpoint, dies_at)
        assert checkpoint.exists() == (dies_at >= 4)
    torch.manual_seed(12345)  # the state that another process would have
    resumed = fitted(method, digits_task(method), checkpoint)
    assert torch.equal(whole.task.pixels(), resumed.task.pixels())
    assert torch.equal(whole.losses, resumed.losses)


@pytest.mark.parametrize("method", ALL, ids=named)
def test_a_batch_is_of_its_classes_and_a_function_of_seed_and_step(method):
    task, labels = digits_task(method), torch.from_numpy(load_digits().target)
    batch = method.batch(task, 7)
    assert batch.rows.shape == (10, 64) and (labels[batch.rows] == torch.arange(10)[:, None]).all()
    assert all(len(rows.unique()) == 64 for rows in batch.rows)
    method.batch(task, 3)
    again = method.batch(digits_task(method), 7)
    assert torch.equal(batch.rows, again.rows) and batch.draws.keys() == again.draws.keys()
    assert not torch.equal(batch.rows, method.batch(task, 8).rows)
    assert len({next(iter(method.batch(task, step).draws)) for step in range(20)}) == 5
    large = replace(method, batch_size=10_000).batch(task, 0).rows
    sizes = labels.bincount()
    assert large.shape == (10, sizes.max())
    repeats = [rows.bincount()[rows.unique()] for rows in large]
    assert all(counts.max() - counts.min() <= 1 for counts in repeats)


@pytest.mark.parametrize("method", ALL, ids=named)
def test_images_start_as_those_of_their_class_or_as_noise(method):
    task, labels = digits_task(method, ipc=5), torch.from_numpy(load_digits().target)
    sources = task.synthetic.sources
    assert torch.equal(labels[sources.flatten()], task.synthetic.labels)
    assert len(sources.unique()) == 50 == len(task.synthetic)
    started = (task.pixels() * 255).round().to(torch.uint8)
    assert torch.equal(started, task.images[sources.flatten()])
    noise = replace(method, start="noise").synthetic(task)
    assert (noise.sources == -1).all() and abs(noise().std().item() - 1) < 0.05
    task.ipc = 400  # more than there are
    sources = method.synthetic(task).sources
    assert sources.shape == (10, 400)
    repeats = torch.stack([rows.bincount(minlength=2000).max() for rows in sources])
    assert repeats.max() <= 3


@pytest.mark.parametrize("method", ALL, ids=named)
def test_what_is_no_number_is_an_error_with_a_remedy(method, tmp_path):
    method = replace(method, learning_rate=1e30)
    task, checkpoint = digits_task(method), tmp_path / "last.ckpt"
    with pytest.raises(StageError, match="NaN or infinite at step 1 of 20") as raised:
        fitted(method, task, checkpoint)
    assert raised.value.remedy == "lower it, e.g. method.learning_rate=1e+29"
    assert not checkpoint.exists()  # nothing that a second call would go on from


def test_memory_is_estimated_and_too_little_is_refused_before_the_first_step():
    for ipc in (4, 40):
        method = replace(ALL[0], partition=2)
        task = digits_task(method, ipc=ipc)
        network, images = task.network(0), task.synthetic().flatten(0, 1).detach()
        whole = graph_bytes(network, images)
        assert method.num_in_graph(task) == len(images) == 40 * ipc
        needed = step_bytes(method, task)
        assert 0.7 * whole < needed < 1.2 * whole + task.images.nbytes + network_bytes(task)
        require_memory(needed, 40 * ipc, free=needed)
        with pytest.raises(StageError, match=f"a step with {40 * ipc:,} images at once needs"):
            require_memory(needed, 40 * ipc, free=needed - 1)
    assert ALL[1].num_in_graph(digits_task(ipc=50)) == 150


def test_networks_that_live_on_are_counted_with_a_fresh_one():
    tasks = [digits_task(method) for method in (ALL[0], ALL[3])]
    weights = sum(part.nbytes for part in tasks[0].network(0).state_dict().values())
    assert network_bytes(tasks[0]) == weights
    velocity_and_counts = weights + 16
    assert network_bytes(tasks[1]) == weights + 5 * (weights + velocity_and_counts)


class Cusp(Distiller):
    """Has a loss of 0 whose gradient is no number."""

    def step(self, task, batch, update) -> None:
        update(lambda: (0 * task.fake(batch)).abs().sqrt().sum())


def test_pixels_are_looked_at_after_the_last_step_too():
    method = Cusp(num_steps=5, learning_rate=1.0, dsa="")
    with pytest.raises(StageError, match="NaN or infinite at step 0 of 5"):
        fitted(method, digits_task(method))


@pytest.mark.parametrize("method", ALL, ids=named)
@pytest.mark.parametrize("size", [12, 17])
def test_colours_and_odd_sizes(method, size):
    method = replace(method, num_steps=5, dsa="_".join(OPERATIONS))
    task = photographs_task(method, size)
    module = fitted(method, task)
    assert task.pixels().shape == (4, 3, size, size) and module.losses.isfinite().all()
    assert method.counts(task).tolist() == [1, 1, 1, 1]
    counts = replace(method, masses=True).counts(task)
    assert counts.view(2, 2).sum(1).tolist() == [3, 3]


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"start": "nois"}, "method.start: 'nois' is not known"),
        ({"dsa": "color_corp"}, "method.dsa: there is no operation 'corp'"),
        ({"num_steps": -1}, "method.num_steps: -1 is negative"),
        ({"learning_rate": float("nan")}, "method.learning_rate: nan is not positive"),
        ({"momentum": 1.0}, "method.momentum: 1.0 is outside"),
    ],
)
def test_impossible_options_are_refused(options, cause):
    with pytest.raises(ConfigError, match=cause):
        replace(ALL[0], **options)


# --- closed forms --------------------------------------------------------------------------------


def test_the_loss_of_dm_is_that_of_numpy():
    method = DM(num_steps=1, learning_rate=1.0, dsa="", batch_size=9)
    task = digits_task(method, ipc=3)

    def perceptron(*parts: object) -> nn.Module:
        torch.manual_seed(item_seed("perceptron", *parts))
        layers = nn.Flatten(), nn.Linear(64, 7), nn.ReLU(), nn.Linear(7, 10)
        return nn.Sequential(*layers)

    task._make_network = perceptron
    loss = loss_of(method, task, 4)()
    layer = perceptron(4)[1]
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()

    def mean_features(images: np.ndarray) -> np.ndarray:
        return np.maximum(images.reshape(len(images), 64) @ weight.T + bias, 0).mean(0)

    images, rows = load_digits().images, method.batch(task, 4).rows.numpy()
    images = (np.round(images * 255 / 16) / 255 - 0.3) / 0.4
    expected = sum(
        np.square(mean_features(images[rows[c]]) - mean_features(images[sources])).sum()
        for c, sources in enumerate(task.synthetic.sources.numpy())
    )
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dsa", ["", "crop", "scale", "cutout", "rotate", "flip"])
def test_the_gradient_of_dm_is_that_of_finite_differences(dsa):
    method = DM(num_steps=1, learning_rate=1.0, dsa=dsa, batch_size=8)
    by_gradient, by_differences = slope_of(method, digits_task(method))
    assert by_differences == pytest.approx(by_gradient, rel=1e-5)


@pytest.mark.parametrize("kernel", ["gaussian", "linear", "polynomial"])
def test_the_gradient_of_m3d_is_that_of_finite_differences(kernel):
    method = M3D(num_steps=1, learning_rate=1.0, dsa="", batch_size=8, kernel=kernel)
    task = digits_task(method)
    if kernel == "gaussian":  # whose widths are taken for constants
        points = torch.rand(1, 9, 4, generator=item_generator("points"), dtype=torch.double)
        squares = torch.cdist(points, points)[0].square()
        width = squares.sum() / 72
        expected = sum((-squares / (width * 2.0**k)).exp() for k in range(-2, 3))
        assert torch.allclose(method._kernel(points)[0], expected)
        return
    by_gradient, by_differences = slope_of(method, task)
    assert by_differences == pytest.approx(by_gradient, rel=1e-5)


def test_m3d_with_a_linear_kernel_is_dm():
    options = {"num_steps": 1, "learning_rate": 1.0, "dsa": "", "batch_size": 20}
    m3d, dm = M3D(**options, kernel="linear"), DM(**options)
    losses = [loss_of(method, digits_task(method, ipc=3), 0) for method in (m3d, dm)]
    assert losses[0]().item() == pytest.approx(losses[1]().item(), rel=1e-4)


def test_networks_of_m3d_serve_several_steps():
    method = replace(ALL[2], steps_per_network=3)
    task = digits_task(method)
    weights = [next(method.network(task, step).parameters()).flatten() for step in range(4)]
    assert torch.equal(weights[0], weights[2]) and not torch.equal(weights[2], weights[3])


def test_real_and_synthetic_images_are_augmented_alike():
    """A set that is its own batch has loss 0 under every operation."""
    for dsa in OPERATIONS:
        method = DM(num_steps=1, learning_rate=1.0, dsa=dsa, batch_size=3)
        task = digits_task(method, ipc=3)
        batch = method.batch(task, 0)
        task.synthetic.images.data = task.normalized(batch.rows)
        seen = Recorded()
        method.step(task, batch, seen)
        assert seen.closures[0]().item() == 0
        assert not torch.equal(task.real(batch), task.normalized(batch.rows)) or dsa == "flip"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_draw_augments_every_image_as_it_augments_one(operation):
    images = torch.rand(4, 3, 9, 9, generator=item_generator("images"))
    draws = draw_dsa(operation, 1, 9, item_generator("draw"))
    alone = torch.cat([OPERATIONS[operation](image[None], *draws.values()) for image in images])
    assert torch.allclose(siamese(images, draws), alone, atol=1e-6)


def test_batch_norm_sees_all_classes_together():
    task = digits_task(ALL[0], norm="batch")
    network, images = task.network(0), task.real(ALL[0].batch(task, 0))
    together = class_features(network, images).mean(1)
    alone = torch.cat([class_features(network, one[None]).mean(1) for one in images])
    assert not torch.allclose(together, alone, atol=1e-2)
    network = settled(task.network(0), images.flatten(0, 1))
    later = class_features(network, images).mean(1)
    assert torch.allclose(later, together, atol=1e-2)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_masses_are_the_images_nearest_to_each(norm):
    method = replace(ALL[0], masses=True)
    task = digits_task(method, ipc=3, norm=norm)
    sizes = torch.from_numpy(load_digits().target).bincount()
    counts = method.counts(task).view(10, 3)
    assert torch.equal(counts.sum(1), sizes) and counts.min() < counts.max()
    task.synthetic.images.data[:, 2] = task.synthetic.images.data[:, 1]  # never nearer than it
    again = method.counts(task).view(10, 3)
    assert (again[:, 2] == 0).all() and torch.equal(again[:, 0] + again[:, 1], sizes)
    assert (again[:, :2] >= counts[:, :2]).all()
    whole = photographs_task(method, 12)
    whole.ipc = 3
    whole.synthetic = method.synthetic(whole)  # every image of its class
    assert method.counts(whole).tolist() == [1] * 6


# --- rules ---------------------------------------------------------------------------------------

YAML = safe_load((ROOT / "conf" / "method" / "dm.yaml").read_text())
del YAML["_target_"]


@pytest.mark.parametrize(
    ("dataset", "ipc", "expected"),
    [
        ("cifar10", 50, (20000, 1, "color_crop_cutout_flip_scale_rotate")),
        ("cifar10", 100, (20000, 10, "color_crop_cutout_flip_scale_rotate")),
        ("cifar100", 100, (20000, 1, "color_crop_cutout_flip_scale_rotate")),
        ("svhn", 10, (20000, 1, DSA)),
        ("digits", 10, (300, 10, DSA)),
    ],
)
def test_the_rules_of_dm_are_those_of_the_source_and_ours_for_digits(dataset, ipc, expected):
    options = resolved(YAML, ipc=ipc, dataset=dataset)
    assert (options["num_steps"], options["learning_rate"], options["dsa"]) == expected
    assert "rules" not in options


def test_what_was_typed_beats_a_rule_and_another_rule_changes_nothing_else():
    typed = resolved(YAML | {"learning_rate": 3.0, "dsa": ""}, ipc=100, dataset="cifar10")
    assert (typed["num_steps"], typed["learning_rate"], typed["dsa"]) == (20000, 3.0, "")
    more = YAML | {"rules": [{"max_ipc": 1, "num_steps": 9}, *YAML["rules"]]}
    assert resolved(more, ipc=2, dataset="mnist") == resolved(YAML, ipc=2, dataset="mnist")
    assert resolved(more, ipc=1, dataset="mnist")["num_steps"] == 9


@pytest.mark.parametrize(
    ("rules", "cause", "remedy"),
    [
        ([{"learning_rat": 1}], "rules.0.learning_rat: there is", "did you mean 'learning_rate'"),
        ([{"min_ip": 1}], "rules.0.min_ip: there is no", "did you mean 'min_ipc'"),
        ([{"max_ipc": 1, "num_steps": 1}], "method.num_steps: null", "set method.num_steps to"),
    ],
)
def test_rules_that_are_wrong_or_leave_a_gap_are_refused(rules, cause, remedy):
    with pytest.raises(ConfigError, match=cause) as raised:
        resolved(YAML | {"rules": rules}, ipc=5, dataset="digits")
    assert remedy in raised.value.remedy


# --- the folder ----------------------------------------------------------------------------------

NAMES = ["zero", "one", "../two"]


@pytest.fixture
def floats() -> torch.Tensor:
    """Six grey images, some of whose pixels are no bytes."""
    return 1.4 * torch.rand(6, 1, 8, 8, generator=item_generator("floats")) - 0.2


def columns() -> dict[str, torch.Tensor]:
    return {
        "labels": torch.arange(3).repeat_interleave(2),
        "index": torch.arange(2).repeat(3),
        "counts": torch.tensor([3, 4, 5, 6, 0, 1]),
        "sources": torch.tensor([7, 9, -1, 0, 2, 1]),
    }


def test_a_written_set_is_read_as_it_was(floats, tmp_path):
    write_image_set(tmp_path, floats, NAMES, **columns())
    images = ImageSet.load(tmp_path)
    assert len(images) == 6 and images.names[5] == "2_two/00001.png"
    assert all(torch.equal(getattr(images, name), values) for name, values in columns().items())
    assert torch.equal(images.pixels(), floats) and torch.equal(images.pixels(8), floats)
    assert images.pixels(16).shape == (6, 1, 16, 16)
    number, image = images.items()[3]
    assert number == 3 and torch.equal(image, floats[3])
    shown = torch.stack([read_png(tmp_path / name) for name in images.names])
    assert torch.equal(shown, (floats.clamp(0, 1) * 255).round().to(torch.uint8))
    names = pq.read_table(tmp_path / "images.parquet").column_names
    assert names == ["file_name", "label", "index", "count", "source"]


def test_images_of_points_are_named_by_class_and_number(floats, tmp_path):
    points = ClassCodebooks(latents=torch.zeros(6, 2), **columns())
    write_image_set(tmp_path, floats, NAMES, **columns())
    for file in ("images.safetensors", "images.parquet"):
        (tmp_path / file).unlink()
    images = ImageSet.of_points(tmp_path, points, NAMES)
    assert images.names[5] == "2_two/00001.png" and torch.equal(images.counts, points.counts)
    pixels = images.pixels()
    assert pixels.dtype == torch.uint8 and images.pixels(4).shape == (6, 1, 4, 4)
    assert torch.equal(images.items()[5][1], pixels[5])
    (tmp_path / images.names[5]).unlink()
    with pytest.raises(StoreError, match="5 images where there have to be 6"):
        ImageSet.of_points(tmp_path, points, NAMES)


@pytest.mark.parametrize("file", ["images.parquet", "images.safetensors", "0_zero/00000.png"])
def test_a_damaged_set_is_refused(file, floats, tmp_path):
    write_image_set(tmp_path, floats, NAMES, **columns())
    (tmp_path / file).write_bytes(b"no")
    if file.endswith("png"):  # for people: what students see is whole
        assert torch.equal(ImageSet.load(tmp_path).pixels(), floats)
        return
    with pytest.raises(StoreError, match=f"{file} cannot be read") as raised:
        ImageSet.load(tmp_path).pixels()
    assert raised.value.remedy == f"remove {tmp_path} and run again"


def test_a_set_with_a_hole_or_a_way_out_is_refused(floats, tmp_path):
    write_image_set(tmp_path, floats, NAMES, **columns())
    table = pq.read_table(tmp_path / "images.parquet")
    (tmp_path / "0_zero" / "00001.png").unlink()
    with pytest.raises(StoreError, match="5 images where there have to be 6"):
        ImageSet.load(tmp_path)
    escaped = ["../x.png", *table["file_name"].to_pylist()[1:]]
    pq.write_table(table.set_column(0, "file_name", [escaped]), tmp_path / "images.parquet")
    with pytest.raises(DataError, match="outside its folder"):
        ImageSet.load(tmp_path)


def distilled(folder, floats: torch.Tensor) -> TrainingSet:
    """Write a distilled folder of a method's images; return what students get."""
    write_image_set(folder, floats, NAMES, **columns())
    images = ImageSet.load(folder)
    rows = {"file_name": list(images.names), "label": images.labels.tolist(), "weight": [1.0] * 6}
    write_metadata(folder, rows, NAMES, None, 1.0)
    return load_distilled(folder).training_set()


def test_float_images_reach_the_student_unclipped(floats, tmp_path):
    data, normalize = distilled(tmp_path, floats), Normalize([0.3], [0.4])
    protocol = Protocol(batch_size=2, num_steps=3)
    batch = {"rows": torch.tensor([4, 0]), "draws": {}}
    views = ViewMaker(data.images, protocol, normalize)(batch)
    assert torch.equal(views, floats[[4, 0]]) and views.min() < 0 and views.max() > 1
    assert load_distilled(tmp_path).training_set(16).images.shape == (6, 1, 16, 16)
    assert torch.equal(load_distilled(tmp_path)[4][0], floats[4])
    clipped = load_distilled(tmp_path).training_set(from_pngs=True).images
    assert torch.equal(clipped, (floats.clamp(0, 1) * 255).round() / 255)
    (tmp_path / "images.safetensors").unlink()
    images = load_distilled(tmp_path).training_set().images
    assert images.dtype == torch.uint8
    shown = ViewMaker(images, protocol, normalize)(batch)
    assert torch.equal(shown, images[[4, 0]].float() / 255)


# --- the stage -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """The index of digits, and what computes on it."""
    folder = tmp_path_factory.mktemp("index")
    dataset = Digits("digits", 8, 1, train_per_class=20)
    runtime = Runtime(dataset=dataset, models=Models([]), accelerator="cpu")
    found = index.run(Node(stage="index", version=2, identity={}), {}, folder, runtime)
    write_json(folder / "manifest.json", {"facts": found})
    return folder, runtime


def node(**changes) -> Node:
    student = {"name": "small", "_target_": "ddoq.students.ConvNet", "depth": 2, "width": 8}
    method = resolved(YAML | {"num_steps": 40}, ipc=3, dataset="digits")
    identity = {
        "method": method | {"_target_": "ddoq.distillers.DM"},
        "student": student,
        "ipc": 3,
        "normalization": "dataset",
        "on_small_class": "error",
        "seed": 0,
    }
    return Node(stage="distill", version=1, identity=identity | changes, title="dm")


def test_the_stage_writes_a_set_and_nothing_else(indexed, tmp_path):
    folder, runtime = indexed
    found = distill.run(node(), {"index": folder}, tmp_path, runtime)
    assert found["num_images"] == 30 and len(found["losses"]) == 40 == found["loss_steps"][-1]
    assert found["losses"][-1] < found["losses"][0]
    images = ImageSet.load(tmp_path)
    labels = runtime.tensors(folder, "train")[1]
    assert torch.equal(labels[images.sources], images.labels) and images.counts.tolist() == [1] * 30
    there = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    starts = {f"start/{name}" for name in images.names}
    assert there == {*images.names, *starts, "images.safetensors", "images.parquet"}
    for name, source in zip(images.names, images.sources, strict=True):
        assert torch.equal(
            read_png(tmp_path / "start" / name), runtime.tensors(folder, "train")[0][source]
        )
    assert not torch.equal(
        read_png(tmp_path / images.names[0]), read_png(tmp_path / "start" / images.names[0])
    )


def test_the_stage_goes_on_where_it_was_interrupted(indexed, tmp_path, monkeypatch):
    folder, runtime = indexed
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for path in (whole, cut):
        path.mkdir()
    facts = distill.run(node(), {"index": folder}, whole, runtime)
    with monkeypatch.context() as patch:
        patch.setattr(DM, "step", _dying_at(25))
        with pytest.raises(KeyError):
            distill.run(node(), {"index": folder}, cut, runtime)
    assert (cut / "last.ckpt").is_file()
    assert distill.run(node(), {"index": folder}, cut, runtime) == facts
    files = [path.relative_to(whole) for path in whole.rglob("*.*")]
    assert all((whole / file).read_bytes() == (cut / file).read_bytes() for file in files)
    assert len(files) == sum(path.is_file() for path in cut.rglob("*.*"))


def _dying_at(last: int):
    step = DM.step

    def wrapped(self, task, batch, update) -> None:
        if batch.step == last:
            raise KeyError("the machine failed")
        step(self, task, batch, update)

    return wrapped


def test_a_class_that_is_too_small_is_refused_or_repeated(indexed, tmp_path):
    folder, runtime = indexed
    with pytest.raises(DataError, match="ipc: 30 is more than the 20"):
        distill.make_task(node(ipc=30).identity, folder, runtime)
    few = node(ipc=30, on_small_class="duplicate").identity
    task = distill.make_task(few, folder, runtime)
    assert ALL[0].synthetic(task).sources.shape == (10, 30)
