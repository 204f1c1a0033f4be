"""What stages hand over, in a table: finite, shapes, counts, order.

Real inputs are spoilt in every way there is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from ddoq.data.copies import PICTURES
from ddoq.data.indexed import INDEX
from ddoq.data.soft_labels import view_path
from ddoq.errors import DdoqError, StageError
from ddoq.job import Job, prepare
from ddoq.pipeline.graph import Node, unique
from ddoq.pipeline.stages import STAGES
from ddoq.quantizers import KMeans
from ddoq.quantizers.codebook import ClassCodebooks
from ddoq.stages.classes import require_codebook
from ddoq.stages.files import CODEBOOK
from ddoq.stages.fit_encoder import build_vae
from ddoq.stages.work import compute
from ddoq.utils.handover import Batches, Handover
from support.runs import TEACHER, TINY, composed, run_here

#: A run in which every stage has something to do, small enough for a test.
EVERYTHING = (
    *TINY,
    *TEACHER,
    "encoder=vae",
    "encoder.fit.num_steps=10",
    "encoder.fit.block_out_channels=[8,16]",
    "protocol.labels=stored",
    "protocol.num_seeds=1",
    "measure.fidelity=true",
    "measure.curve=[2]",
    "measure.num_folds=0",
    "baselines=none",
    "+arm@baselines.dm=dm",
    "baselines.dm.method.num_steps=5",
    "+arm@baselines.s3=s3",
    "baselines.s3.selection.num_draws=2",
    "generator.start=statistics",
    "generator.num_sets=2",
    "measure.redundancy=true",
    "ablation=none",
    "ipc=2",
)
Inputs = dict[str, Path]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Job:
    outputs = tmp_path_factory.mktemp("outputs")
    run_here(*EVERYTHING, f"paths.outputs={outputs}", "run.until=relabel")
    return prepare(composed(*EVERYTHING, f"paths.outputs={outputs}"))


# --- what is spoilt ---------------------------------------------------------------------------


def tensors(file: Path, change: Callable[[dict], None]) -> None:
    """Change the tensors in a file; everything else about it stays in order."""
    held = load_file(file)
    change(held)
    save_file({name: tensor.contiguous() for name, tensor in held.items()}, file, {"format": "pt"})


def table(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(file)), file)


def nan_latents(inputs: Inputs) -> None:
    tensors(
        inputs["encode"] / "shard-00000.safetensors",
        lambda held: held["latents"][:300].fill_(np.nan),
    )


def flat_latents(inputs: Inputs) -> None:
    second = inputs["encode"] / "shard-00001.safetensors"
    tensors(second, lambda held: held.update(latents=held["latents"].flatten(1)))


def fewer_latents(inputs: Inputs) -> None:
    second = inputs["encode"] / "shard-00001.safetensors"
    tensors(second, lambda held: held.update(latents=held["latents"][1:]))


def rolled(file: Path) -> None:
    """Give every label to the next row."""
    table(
        file,
        lambda t: t.set_column(t.column_names.index("label"), "label", [np.roll(t["label"], 1)]),
    )


def other_features(inputs: Inputs) -> None:
    inputs["features"] = Path(
        shutil.copytree(inputs["encode"], inputs["encode"].parent / "features")
    )
    rolled(inputs["features"] / "index.parquet")


def other_index(inputs: Inputs) -> None:
    rolled(inputs["index"] / INDEX)


def huge(part: str, name: str) -> Callable[[Inputs], None]:
    """Make a weight so large that what it is multiplied with overflows:
    finite, as all weights that are read.
    """

    def spoil(inputs: Inputs) -> None:
        (file,) = inputs[part].rglob("diffusion_pytorch_model.safetensors")
        tensors(file, lambda held: held[name].fill_(3e38))

    return spoil


def larger_vae(inputs: Inputs) -> None:
    """A VAE of another factor, 8, which divides neither 4 latents to 8 pixels nor 10 pixels."""
    fit = {"block_out_channels": [8, 8, 8, 8], "latent_channels": 4}
    build_vae(fit, 1, 8).save_pretrained(inputs["encoder"] / "vae")


def statistics(inputs: Inputs, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    file = inputs["invert"] / "statistics.safetensors"
    tensors(file, lambda held: held.update(mean=change(held["mean"])))


def points(change: Callable[[dict], None]) -> Callable[[Inputs], None]:
    return lambda inputs: tensors(inputs["quantize"] / CODEBOOK, change)


def without_last_class(held: dict) -> None:
    kept = held["labels"] < held["labels"].max()
    held.update({name: tensor[kept] for name, tensor in held.items()})


def one_image_less(inputs: Inputs) -> None:
    next(inputs["generate"].rglob("*.png")).unlink()


def teacher(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Inputs], None]:
    """Change the last matrix of the teacher's weights, its classifier."""

    def spoil(inputs: Inputs) -> None:
        def of_classifier(held: dict) -> None:
            for name, tensor in held.items():
                if len(tensor) == 10:
                    held[name] = change(tensor)

        tensors(inputs["fitted."] / "teacher.safetensors", of_classifier)

    return spoil


no_numbers = teacher(lambda tensor: tensor * np.nan)
overflowing = teacher(lambda tensor: tensor * 0 + 3e38)
seven_classes = teacher(lambda tensor: tensor[:7])
next_class = teacher(lambda tensor: tensor.roll(1, 0))


def views(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Inputs], None]:
    def spoil(inputs: Inputs) -> None:
        path = view_path(inputs["relabel"], 0)
        np.save(path, change(np.load(path)))

    return spoil


def unseen(logits: np.ndarray) -> np.ndarray:
    logits[1] = np.nan  # as those of an image that an epoch does not get to
    return logits


def a_class_less(inputs: Inputs) -> None:
    table(inputs["label"] / "metadata.parquet", lambda t: t.filter(pa.compute.field("label") < 9))


def other_names(name: str) -> Callable[[Inputs], None]:
    def spoil(inputs: Inputs) -> None:
        file = inputs[name] / "classes.json"
        file.write_text(json.dumps(json.loads(file.read_text())[::-1]))

    return spoil


def nan_features(inputs: Inputs) -> None:
    for file in inputs["features"].glob("shard-*"):
        tensors(file, lambda held: held["latents"][:5].fill_(np.nan))


def features_of_another_network(inputs: Inputs) -> None:
    file = inputs["features"] / "shard-00000.safetensors"
    for file in inputs["features"].glob("shard-*"):
        tensors(file, lambda held: held.update(latents=held["latents"][:, 1:]))


def fewer_features(inputs: Inputs) -> None:
    table(inputs["features"] / "index.parquet", lambda t: t.slice(1))


#: What spoils each cell, or why nothing can.
LATENTS = {"finite": nan_latents, "shapes": flat_latents, "counts": fewer_latents}
OWN = "the network is built here for the data set, and its labels are read with its images"
TABLE: dict[str, dict[str, Callable | str]] = {
    "index": {
        "finite": "pixels are integers, and moments of them finite",
        "shapes": (
            "every picture is made a square of the same side and channels "
            "(tests/data/test_images.py)"
        ),
        "counts": "classes without images are refused (tests/data/test_bad_data.py)",
        "order": "the index is what says which label an image has",
    },
    "audit": {
        "finite": "digests are integers",
        "shapes": "all pictures of a data set have the same side and channels",
        "counts": lambda inputs: table(inputs["index"] / PICTURES, lambda t: t.slice(1)),
        "order": "pictures are found by their number in the source",
    },
    "fit_encoder": {
        "finite": {"fit.learning_rate": 1e30},
        "shapes": OWN,
        "counts": OWN,
        "order": "it knows no labels",
    },
    "probe": {
        "finite": huge("encoder", "decoder.conv_in.weight"),
        "shapes": larger_vae,
        "counts": "outputs are put together from slices of the images",
        "order": "images stand for themselves, and their labels for nothing",
    },
    "fit_teacher": {
        "finite": {"protocol.learning_rate": 1e30},
        "shapes": OWN,
        "counts": OWN,
        "order": OWN,
    },
    "check_teacher": {
        "finite": no_numbers,
        "shapes": seven_classes,
        "counts": "outputs are counted with those of all networks (below)",
        "order": next_class,
    },
    "encode": {
        "finite": huge("encoder", "encoder.conv_in.weight"),
        "shapes": "one network and one side of images; outputs of all networks: below",
        "counts": "a shard is written when it is full; outputs of all networks: below",
        "order": "latents get their labels from the index, by position",
    },
    "quantize": LATENTS | {"order": other_features},
    "curve": LATENTS | {"order": other_features},
    "fit_generator": LATENTS | {"order": other_index},
    "fit_surrogates": {
        "finite": "weights that are not finite are refused as those of fit_teacher are",
        "shapes": OWN,
        "counts": OWN,
        "order": OWN,
    },
    "check_generator": {
        "finite": "its network is probed before, and errors that are not finite are refused",
        "shapes": (
            "configurations of network and encoder are compared at the start "
            "(tests/experiment/test_compatible.py)"
        ),
        "counts": "one answer for each latent that was chosen",
        "order": "that of the classes is what it is about (tests/journeys/test_orders.py)",
    },
    "invert": LATENTS | {"order": other_index},
    "distill": {
        "finite": {"method.learning_rate": 1e30},
        "shapes": OWN,
        "counts": (
            "images and their columns are put together from one set "
            "(tests/distillers/test_distillers.py)"
        ),
        "order": OWN,
    },
    "generate": {
        "finite": huge("encoder", "decoder.conv_in.weight"),
        "shapes": larger_vae,
        "counts": points(without_last_class),
        "order": other_index,
    },
    "select": {
        "finite": nan_features,
        "shapes": features_of_another_network,
        "counts": one_image_less,
        "order": lambda inputs: rolled(inputs["features"] / "index.parquet"),
    },
    "label": {
        "finite": points(lambda held: held["counts"].zero_()),
        "shapes": "pictures are linked as they are, and their columns made of the points",
        "counts": one_image_less,
        "order": other_index,
    },
    "relabel": {
        "finite": overflowing,
        "shapes": seven_classes,
        "counts": one_image_less,
        "order": other_index,
    },
    "fidelity": {
        "finite": no_numbers,
        "shapes": features_of_another_network,
        "counts": fewer_features,
        "order": lambda inputs: rolled(inputs["features"] / "index.parquet"),
    },
    "redundancy": {
        "finite": views(unseen),
        "shapes": views(lambda logits: logits[:, :7]),
        "counts": a_class_less,
        "order": other_names("next"),
    },
    "evaluate": {
        "finite": views(unseen),
        "shapes": views(lambda logits: logits[:, :7]),
        "counts": a_class_less,
        "order": other_names("label"),
    },
    "report": dict.fromkeys(
        ("finite", "shapes", "counts", "order"),
        "it shows facts, which are finite when a stage ends (below)",
    ),
}
#: More ways into a cell of the table.
MORE = [
    ("encode", huge("encoder", "quant_conv.weight")),
    ("quantize", lambda inputs: (other_features(inputs), fewer_features(inputs))),
    ("fit_generator", {"fit.learning_rate": 1e30}),
    ("generate", huge("model", "pos_embed.proj.weight")),
    ("generate", lambda inputs: statistics(inputs, lambda part: part * np.nan)),
    ("generate", lambda inputs: statistics(inputs, lambda part: part[1:])),
    ("invert", huge("model", "pos_embed.proj.weight")),
    ("generate", points(lambda held: held["latents"][3].fill_(np.nan))),
    ("generate", points(lambda held: held["labels"].copy_(held["labels"].roll(1)))),
    ("generate", points(lambda held: held["index"].fill_(0))),
    ("generate", points(lambda held: held["sources"].fill_(10**9))),
    ("label", points(lambda held: held["latents"][3].fill_(np.inf))),
    ("relabel", no_numbers),
    ("fidelity", overflowing),
]
#: Files that would be the artefact.
FILES = (
    "vae/*",
    "transformer/*",
    "*.safetensors",
    "*.parquet",
    "view-*.npy",
    "*/*.png",
    "classes.json",
)


def test_the_table_has_every_stage():
    assert tuple(TABLE) == STAGES and all(
        list(row) == ["finite", "shapes", "counts", "order"] for row in TABLE.values()
    )


CELLS = [
    (stage, how) for stage, row in TABLE.items() for how in row.values() if not isinstance(how, str)
]
NAMES = [
    f"{stage}-{kind}"
    for stage, row in TABLE.items()
    for kind, how in row.items()
    if not isinstance(how, str)
]


@pytest.mark.parametrize(
    ("stage", "how"),
    [*CELLS, *MORE],
    ids=[*NAMES, *(f"{stage}-more{i}" for i, (stage, _) in enumerate(MORE))],
)
def test_what_is_spoilt_is_refused_before_there_is_a_file(finished, tmp_path, stage, how):
    node = next(
        node for node in unique(finished.experiment.targets("report")) if wanted(node, stage)
    )
    inputs = {
        name: Path(shutil.copytree(finished.store.path(upstream), tmp_path / "in" / name))
        for name, upstream in node.inputs.items()
    }
    if isinstance(how, dict):
        node = changed(node, how)
    else:
        how(inputs)
    if "features" in inputs and stage in ("quantize", "curve"):
        node = replace(
            node,
            identity={**node.identity, "space": {"name": "features", "representative": "nearest"}},
        )
    runtime = finished.runtime
    if (stage, how) == ("probe", larger_vae):
        runtime = replace(runtime, dataset=replace(runtime.dataset, image_size=10))
    (folder := tmp_path / "out").mkdir()
    with pytest.raises(DdoqError) as caught:
        compute(node, inputs, folder, runtime)
    cause, remedy = str(caught.value).split("\n")
    assert len(cause) > 20 and len(remedy) > 10
    assert not [file for pattern in FILES for file in folder.glob(pattern)]


def wanted(node: Node, stage: str) -> bool:
    """Tell whether a node is one of a stage, and neither features nor made of images that are not
    those of points.
    """
    others = {"distill": (), "label": ("dm", "s3"), "relabel": ("dm", "s3")}.get(stage, ("dm",))
    return node.stage == stage and node.title not in ("features", *others)


def changed(node: Node, options: dict[str, float]) -> Node:
    identity = json.loads(json.dumps(node.identity))
    for dotted, value in options.items():
        *path, last = dotted.split(".")
        place = identity
        for name in path:
            place = place[name]
        place[last] = value
    return replace(node, identity=identity)


def test_what_is_in_order_passes(finished, tmp_path):
    """The same calls with nothing spoilt: each stage ends with its facts."""
    for stage in ("label", "probe", "generate", "relabel", "quantize"):  # those that take no time
        node = next(
            node for node in unique(finished.experiment.targets("report")) if wanted(node, stage)
        )
        (folder := tmp_path / stage).mkdir()
        inputs = {name: finished.store.path(upstream) for name, upstream in node.inputs.items()}
        assert compute(node, inputs, folder, finished.runtime)


# --- the checks themselves --------------------------------------------------------------------

THINGS = Handover("stage", "things", "do something else")


def test_finite_values_pass_even_where_their_sum_overflows():
    for dtype, large in ((torch.float16, 6e4), (torch.bfloat16, 3e38), (torch.float32, 3e38)):
        THINGS.finite(torch.full((40, 3), large, dtype=dtype))
        for bad in (np.nan, np.inf, -np.inf):
            values = torch.full((40, 3), large, dtype=dtype)
            values[7, 1] = bad
            with pytest.raises(
                StageError,
                match=r"^stage: 1 of 40 things are NaN or infinite\n  -> do something else$",
            ):
                THINGS.finite(values)
    THINGS.finite(torch.empty(0, 3))
    THINGS.finite(torch.arange(3))


def test_outputs_are_as_many_and_of_the_shape_of_the_first_or_of_what_is_known():
    batch = [torch.arange(4), torch.zeros(4, 2)]
    free, bound = Batches(THINGS), Batches(THINGS, (3,))
    free.check(torch.zeros(4, 5), batch)
    for promised, outputs in (
        (free, torch.zeros(4, 6)),
        (free, torch.zeros(3, 5)),
        (bound, torch.zeros(4, 5)),
    ):
        with pytest.raises(StageError, match="things of shape"):
            promised.check(outputs, batch)
    assert bound.check(torch.ones(4, 3), {"rows": torch.arange(4)}).sum() == 12


def test_facts_are_finite_at_any_depth():
    THINGS.facts({"a": [1, 2.5, None, "nan"], "b": {"c": True}})
    with pytest.raises(StageError, match=r"b\.1\.c = nan"):
        THINGS.facts({"a": 1.0, "b": [{}, {"c": float("nan")}]})


@pytest.mark.parametrize(
    "change",
    [
        lambda book: {"centroids": book.centroids * np.nan},
        lambda book: {"centroids": book.centroids[:, :1]},
        lambda book: {"centroids": book.centroids[1:]},
        lambda book: {"weights": book.weights * 1.001},
        lambda book: {"weights": book.weights * np.nan},
        lambda book: {"weights": book.weights - book.weights.max()},
        lambda book: {"counts": book.counts * 0},
        lambda book: {"nearest": book.nearest + 50},
    ],
)
def test_a_solver_that_did_not_solve_its_task_is_found_out(change):
    latents = torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(0))
    book = KMeans(4).fit(latents, torch.Generator().manual_seed(0))
    require_codebook(book, 0, 4, 50, (2, 3))
    with pytest.raises(StageError, match="^quantize: class 0: "):
        require_codebook(replace(book, **change(book)), 0, 4, 50, (2, 3))


def test_codebooks_of_a_run_are_sums_of_one(finished):
    node = next(
        node for node in unique(finished.experiment.targets("report")) if node.stage == "quantize"
    )
    held = ClassCodebooks.load(finished.store.path(node) / CODEBOOK)
    assert held.labels.bincount().tolist() == [2] * 10 and held.counts.sum() == 1099
