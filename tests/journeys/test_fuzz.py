"""Generated configurations, latents, histories of the store and damaged files:
a right result or two lines, no more.

``pytest -m slow tests/journeys/test_fuzz.py`` tries many more.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
import zipfile
from collections.abc import Callable
from functools import cache, partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

from ddoq.config.checks import check
from ddoq.config.complete import completed
from ddoq.config.explain import explain
from ddoq.config.form import check_form
from ddoq.config.names import NOT_IDENTITY, run_name
from ddoq.data.builtin import FashionMNIST
from ddoq.data.class_order import outputs_of_classes, read_order
from ddoq.data.distilled import file_name, load_distilled, write_metadata, write_png
from ddoq.data.image_set import ImageSet, write_image_set
from ddoq.data.label_space import LabelSpace
from ddoq.data.latents import LatentWriter, StoredLatents
from ddoq.data.parquet import ParquetImages
from ddoq.data.scan import scan_images
from ddoq.encoders import TAEF2
from ddoq.errors import ConfigError, DataError, DdoqError, StoreError
from ddoq.job import prepare
from ddoq.labelers.cifar_resnet import CIFARResNet, ResNet
from ddoq.pipeline.estimate import Ledger
from ddoq.pipeline.keys import digest
from ddoq.pipeline.store import Store
from ddoq.quantizers import (
    CLVQ,
    D4M,
    Barycenter,
    BisectingKMeans,
    ClassCodebooks,
    Clip,
    GaussianMixture,
    Herding,
    KCenter,
    KMeans,
    KMedoids,
    Mass,
    Nearest,
    Power,
    RandomSubset,
    Shrink,
    Uniform,
)
from ddoq.stages.invert import read_statistics
from ddoq.watch.command import find, frame
from ddoq.watch.page import page_of
from support.fuzzing import damaged, examples, holds, settings_of, two_lines_or_nothing
from support.nodes import bare_node
from support.processes import ddoq
from support.runs import ROOT, composition

# --- configurations ---------------------------------------------------------------------------

GROUPS = {
    group: sorted(file.stem for file in (ROOT / "conf" / group).glob("*.yaml"))
    for group in (
        *(
            "dataset",
            "encoder",
            "quantizer",
            "space",
            "weighting",
            "generator",
            "student",
            "teacher",
            "protocol",
        ),
        *("method", "baselines", "ablation", "compare", "logger"),
    )
}
VALUES = (
    *(
        "-1",
        "0",
        "1",
        "2",
        "0.5",
        "1e30",
        "1e-320",
        "nan",
        "-inf",
        "9223372036854775808",
        "10000000000",
        "true",
        "null",
    ),
    *(
        "''",
        "x",
        "'a b'",
        '"../../é"',
        '"\0"',
        '"\udcff"',
        '"%s{0}{x}"',
        "${ipc}",
        "${nope}",
        "${oc.env:NOPE}",
        "${run}",
    ),
    *(
        "[]",
        "[-1]",
        "[x]",
        "[null]",
        "[nan]",
        "[[1]]",
        "{}",
        "{a:1}",
        "{name:x}",
        "{a:{b:c}}",
        "{_target_:os.system}",
    ),
)


@cache
def _base(combination: tuple[str, ...]) -> DictConfig:
    """Return a composed configuration, which takes a fifth of a second:
    many overrides are tried on each.
    """
    nowhere = [f"paths.{of}={ROOT / 'nowhere'}" for of in ("data", "models", "outputs")]
    return composition(*combination, *nowhere)


def _keys(part: dict, prefix: str = "") -> list[str]:
    inner = [
        key
        for name, one in part.items()
        if isinstance(one, dict)
        for key in _keys(one, f"{prefix}{name}.")
    ]
    return [*(prefix + name for name in part), *inner]


def _overridden(base: DictConfig, overrides: list[str]) -> DictConfig:
    """Apply overrides of values as Hydra does, without composing anew."""
    config = base.copy()
    ConfigLoaderImpl._apply_overrides_to_config(
        OverridesParser.create().parse_overrides(overrides), config
    )
    return config


def _planned(config: DictConfig) -> None:
    """Do what ``ddoq run.plan_only=true`` does: name the run, check, plan.

    The data are taken to be there.
    """
    plain = completed(OmegaConf.to_container(config, resolve=True))
    check_form(
        {key: part for key, part in plain.items() if key not in NOT_IDENTITY}, without=NOT_IDENTITY
    )
    run_name(plain)
    check(plain)
    prepare(
        plain,
        fingerprints={
            digest({"dataset": plain["dataset"], "paths": plain["paths"]["data"]}): "data"
        },
    )


def refused(function: Callable) -> DdoqError | None:
    """Call a function; return ``None`` or the two lines that a user would read. Bugs are raised."""
    try:
        function()
    except Exception as error:
        found = error if isinstance(error, DdoqError) else explain(error)
        if found.cause.startswith("unexpected"):
            raise
        assert len(str(found).splitlines()) == 2, str(found)
        return found


_COMBINATION = st.fixed_dictionaries(
    {}, optional={group: st.sampled_from(choices) for group, choices in GROUPS.items()}
)


@st.composite
def _override(draw: Callable, keys: list[str]) -> str:
    key, value = draw(st.sampled_from(keys)), draw(st.sampled_from(VALUES))
    return draw(
        st.sampled_from(
            [*[f"{key}={value}"] * 9, f"~{key}", f"++{key}x={value}", f"+{key}.x={value}"]
        )
    )


@examples(5, 400)
def test_any_combination_of_choices_and_values_is_planned_or_refused(num):
    @holds(num, st.data())
    def holds_for(data):
        combination = data.draw(_COMBINATION)
        chosen = [f"{group}={choice}" for group, choice in combination.items()]
        base = _base(tuple(chosen))
        event("planned" if refused(lambda: _planned(base)) is None else "refused")
        keys = _keys(OmegaConf.to_container(base))
        for override in data.draw(st.lists(_override(keys), min_size=12, max_size=16)):
            try:
                # called at once
                refused(lambda: _planned(_overridden(base, [override])))  # noqa: B023
            except Exception as error:
                error.add_note(f"ddoq {' '.join(chosen)} {override}")
                raise


@examples(40, 20_000)
def test_any_text_is_an_override_or_refused(num):
    word = st.one_of(
        st.text(),
        st.sampled_from(
            ["ipc", "seed", "=", "+", "~", "[", "{", "$", "@", ":", ",", "'", "..", "1"]
        ),
    )
    base = _base(())

    @holds(num, st.lists(word, max_size=6).map("".join))
    def holds_for(text):
        refused(lambda: _planned(_overridden(base, [text])))


@pytest.mark.parametrize(
    ("override", "cause"),
    [  # found by the tests above, and by longer runs of them
        ("protocol=null", "protocol: None is no protocol"),
        ("encoder=1", "encoder: 1 is no encoder"),
        ("~compare", "compare: no value"),
        ("~trainer", "trainer: no value"),
        ("+trainer.x=1", "trainer.x: there is no such key"),
        ("~baselines.random.generator", "baselines.random.generator: no value"),
        ("baselines.random.quantizer=x", "baselines.random.quantizer: 'x' is no quantizer"),
        ("baselines.full=1", "baselines.full: 1 is no arm"),
        ("+baselines.full.x=1", "baselines.full.quantizer: no value"),
        ("baselines.random.redraw=[1]", r"baselines.random.redraw: \[1\] is not true or false"),
        (
            "baselines.nearest.quantizer._target_=os.system",
            "baselines.nearest.quantizer._target_: 'os.system'",
        ),
        (
            "baselines.nearest.quantizer.num_restarts=0",
            "baselines.nearest.quantizer.num_restarts: 0 is not positive",
        ),
        (
            "baselines.d4m.quantizer.leftover=x",
            "baselines.d4m.quantizer.leftover: 'x' is not known",
        ),
        ("ablation.weightings.power=1", "ablation.weightings.power: 1 is no weighting"),
        (
            "ablation.weightings.power.exponent=nan",
            "ablation.weightings.power.exponent: nan is not a finite number",
        ),
        ("ablation.strengths=[[1]]", "ablation.strengths"),
        ("++compare.students.x=[1]", r"compare.students.x: \[1\] is no student"),
        ("++compare.teachers.x=1", "compare.teachers.x: 1 is no teacher"),
        ("teacher.student=x", "teacher.student: 'x' is no student"),
        # planned for hours
        ("protocol.num_seeds=10000000000", "protocol.num_seeds: 10000000000 is more than 100"),
        ("protocol.weight_decay=nan", "protocol.weight_decay: nan is not a finite number"),
        # would have left outputs/runs
        ("dataset.name=../../x", "dataset.name: '../../x' is no name"),
        ("dataset.root='\0'", "dataset.root: .* is not UTF-8 text"),
        ("paths.data=1", "paths.data: 1 is no folder"),
        ("paths.models=[]", r"paths.models: \[\] is no folder"),
        ("run.quiet=x", "run.quiet: 'x' is not true or false"),
        ("generator.fit.num_heads=-1", "generator.fit.num_heads: -1 is not positive"),
        ("weighting={}", None),
        ("+compare.arms.x=1", "config"),  # OmegaConf fails an assertion
        ("++protocol.milestones.a=1", "config"),  # OmegaConf takes it for an index
        ("protocol=[1]", "protocol: Cannot merge DictConfig with ListConfig"),
        ("student.norm=${oc.env:NOPE}", "student.norm: the environment variable NOPE is not set"),
    ],
)
def test_what_was_found_in_configurations(override, cause):
    found = refused(lambda: _planned(_overridden(_base(()), [override])))
    assert (
        found is None
        if cause is None
        else isinstance(found, ConfigError) and re.search(cause, found.cause)
    ), found


def test_a_name_that_hydra_asks_for_first_is_refused_in_the_same_words():
    """Hydra resolves ``run_name`` before anything checks the configuration,
    and wraps what is raised there.
    """
    base = _overridden(_base(()), ["generator.strength=nan"])
    OmegaConf.set_struct(base, False)
    base.hydra = {"run": {"dir": "${run_name:}"}}
    with pytest.raises(InterpolationResolutionError) as caught:
        _ = base.hydra.run.dir
    assert explain(caught.value).cause == "generator.strength: nan is not a finite number"


# --- codebooks and quantizers -----------------------------------------------------------------

QUANTIZERS = (
    *(
        KMeans,
        Nearest,
        Herding,
        KCenter,
        KMedoids,
        RandomSubset,
        Barycenter,
        D4M,
        CLVQ,
        BisectingKMeans,
    ),
    partial(GaussianMixture, num_components=3),
)
_NUMBERS = st.sampled_from(
    [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.1,
        1e-3,
        1e-30,
        1e-45,
        1e4,
        6e4,
        1e15,
        1e19,
        -3e38,
        1e300,
        np.nan,
        np.inf,
    ]
)


@st.composite
def latents_of_a_class(draw: Callable) -> torch.Tensor:
    """Latents with duplicates, constants and extreme magnitudes, of any floating type and shape."""
    shape = (draw(st.integers(0, 14)), *draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    dtype = draw(st.sampled_from([torch.float16, torch.float32, torch.float64, torch.bfloat16]))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    values = random.normal(size=shape) * draw(st.sampled_from([0, 1e-30, 1e-3, 1, 1e4, 1e18]))
    values += draw(st.sampled_from([0, 1, 1e6]))
    if values.size:
        for place, number in draw(st.lists(st.tuples(st.integers(0, 9999), _NUMBERS), max_size=3)):
            values.flat[place % values.size] = number
        for one, other in draw(
            st.lists(st.tuples(st.integers(0, 13), st.integers(0, 13)), max_size=6)
        ):
            values[one % len(values)] = values[other % len(values)]
    return torch.from_numpy(values).to(dtype)


@examples(15, 3_000)
def test_any_latents_are_quantized_or_refused(num):
    options = st.fixed_dictionaries({"on_small_class": st.sampled_from(["error", "duplicate"])})

    @holds(
        num,
        latents_of_a_class(),
        st.sampled_from(QUANTIZERS),
        st.integers(1, 6),
        options,
        st.sampled_from([0, 0, 2]),
    )
    def holds_for(latents, quantizer, num_centroids, options, num_folds):
        try:
            quantizer = quantizer(num_centroids, **options)
            book = quantizer.fit(latents, torch.Generator().manual_seed(0), num_folds=num_folds)
        except DdoqError as error:
            event("refused")
            assert len(str(error).splitlines()) == 2
            return
        event("quantized")
        assert (
            book.centroids.shape == (num_centroids, *latents.shape[1:])
            and book.centroids.isfinite().all()
        )
        assert (book.weights >= 0).all() and book.weights.sum().item() == pytest.approx(1)
        assert book.counts.sum() == len(latents) and (book.counts >= 0).all()
        assert book.assignments.bincount(minlength=num_centroids).tolist() == book.counts.tolist()
        assert 0 <= book.distortion < np.inf and 0 <= book.variance < np.inf
        assert book.held_out_distortion is None or 0 <= book.held_out_distortion < np.inf


@pytest.mark.parametrize("size", [1e18, 3e18, 1e19, 3e38])
def test_latents_whose_distances_overflow_are_refused(size):
    latents = torch.tensor([[-size], [0.0], [size], [size / 2]])
    if size < 9e18:  # (2 size)² is still a float32
        assert KMeans(2).fit(latents, torch.Generator().manual_seed(0)).centroids.isfinite().all()
    else:
        with pytest.raises(DataError, match="so large"):
            KMeans(2).fit(latents, torch.Generator().manual_seed(0))


def test_fewer_distinct_latents_than_centroids_are_all_centroids():
    book = BisectingKMeans(3).fit(
        torch.tensor([[0.0], [1.0], [1.0]]), torch.Generator().manual_seed(0)
    )
    assert sorted(book.centroids.flatten().tolist()) == pytest.approx(
        [0, 0, 1], abs=1e-6
    ) and sorted(book.counts.tolist()) == [0, 1, 2]


_MASSES = st.lists(st.sampled_from([0, 0, 1e-300, 1e-12, 1e-3, 0.1, 1, 5]), min_size=1, max_size=9)


@examples(100, 5_000)
def test_weights_have_mean_one_whatever_the_masses(num):
    schemes = [
        Uniform(),
        Mass(),
        Power(0),
        Power(0.5),
        Power(3),
        Clip(),
        Clip(0, 0.1),
        Shrink(),
        Shrink(0),
    ]

    @holds(num, _MASSES.filter(any), st.sampled_from(schemes))
    def holds_for(masses, scheme):
        weights = scheme(torch.tensor(masses, dtype=torch.float64) / sum(masses))
        assert (weights >= 0).all() and weights.mean().item() == pytest.approx(1)


@examples(40, 2_000)
def test_codebooks_come_back_exactly(num, tmp_path):
    integers = st.integers(0, 2**62)

    @holds(num, latents_of_a_class().filter(len), st.data())
    def holds_for(latents, data):
        def column() -> torch.Tensor:
            return torch.tensor(
                data.draw(st.lists(integers, min_size=len(latents), max_size=len(latents)))
            )

        columns = {name: column() for name in ("labels", "index", "counts", "sources")}
        saved = ClassCodebooks(latents=latents, **columns)
        saved.save(tmp_path / "codebooks.safetensors", {"a": 1})
        loaded = ClassCodebooks.load(tmp_path / "codebooks.safetensors")
        for name in ("latents", "labels", "index", "counts", "sources"):
            one, other = getattr(saved, name), getattr(loaded, name)
            assert one.dtype == other.dtype and torch.equal(
                one.view(torch.uint8), other.view(torch.uint8)
            )


# --- the store --------------------------------------------------------------------------------

NODES = [
    bare_node("encode", {"n": 0}),
    bare_node("encode", {"n": 1}),
    bare_node("quantize", {"n": 0}, title="x"),
]
_NODE = st.sampled_from(NODES)
_FILES = st.dictionaries(
    st.sampled_from(["a", "b.txt", "sub/c"]), st.binary(max_size=9), min_size=1
)


class Histories(RuleBasedStateMachine):
    """Whatever happened to a store, an artefact is there if and only
    if its files are those that were committed.
    """

    def __init__(self):
        super().__init__()
        self.folder = TemporaryDirectory()
        self.store = Store(Path(self.folder.name))
        self.expected: dict[str, dict[str, bytes]] = {}  # what the artefacts hold that are there
        self.commits = 0

    def teardown(self):
        self.folder.cleanup()

    def _write(self, folder: Path, files: dict[str, bytes]) -> dict:
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        return {"files": len(files)}

    @rule(node=_NODE, files=_FILES)
    def ensure(self, node, files):
        left = self.store.path(node)
        untrusted = (left / "manifest.json").exists()
        before = (
            {}
            if untrusted
            else {str(f.relative_to(left)): f.read_bytes() for f in left.rglob("*") if f.is_file()}
        )
        computed = self.store.ensure(node, lambda folder: self._write(folder, files))
        assert computed == (node.key not in self.expected)
        if computed:  # what an interrupted computation left is resumed in; what was damaged is not
            kept = {name: content for name, content in before.items() if ".tmp-" not in name}
            self.expected[node.key] = kept | files
            self.commits += 1

    @rule(
        node=_NODE,
        files=_FILES,
        error=st.sampled_from([RuntimeError, KeyboardInterrupt, MemoryError]),
    )
    def crash(self, node, files, error):
        def crashing(folder: Path) -> dict:
            self._write(folder, files | {".tmp-1-x": b"half"})
            raise error

        if node.key in self.expected:
            assert self.store.ensure(node, crashing) is False
        else:
            with pytest.raises(error):
                self.store.ensure(node, crashing)

    @rule(node=_NODE, kind=st.sampled_from(["cut", "grow", "delete", "folder"]), data=st.data())
    def damage_a_file(self, node, kind, data):
        if files := self.expected.get(node.key):
            path = self.store.path(node) / data.draw(st.sampled_from(sorted(files)))
            content = path.read_bytes()
            if kind == "cut" and not content:
                return
            path.unlink()
            if kind == "folder":
                (path / "inner").mkdir(parents=True)
                if path.stat().st_size == len(content):
                    return
            elif kind != "delete":
                path.write_bytes(content[:-1] if kind == "cut" else content + b"x")
            del self.expected[node.key]

    @rule(
        node=_NODE,
        text=st.sampled_from(
            ["", "{", "[]", "null", '{"files": []}', '{"files": {"a": 1}}', "[" * 5000]
        ),
    )
    def garble_the_manifest(self, node, text):
        if self.expected.pop(node.key, None) is not None:
            (self.store.path(node) / "manifest.json").write_text(text)

    @rule(node=_NODE)
    def delete_the_manifest(self, node):
        if self.expected.pop(node.key, None) is not None:
            (self.store.path(node) / "manifest.json").unlink()

    @rule(node=_NODE)
    def discard(self, node):
        self.store.discard(node)
        self.expected.pop(node.key, None)
        assert not self.store.path(node).exists()

    @rule()
    def open_again(self):
        self.store = Store(self.store.root)

    @invariant()
    def what_is_there_is_what_was_committed(self):
        for node in NODES:
            assert self.store.has(node) == (node.key in self.expected)
            if node.key in self.expected:
                listed = self.store.manifest(node)["files"]
                assert {name: file["bytes"] for name, file in listed.items()} == {
                    name: len(content) for name, content in self.expected[node.key].items()
                }
            else:
                with two_lines_or_nothing():
                    self.store.manifest(node)

    @invariant()
    def the_ledger_has_a_line_for_every_commit(self):
        ledger = self.store.root / "ledger.jsonl"
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        assert len(lines) == self.commits and all(json.loads(line)["key"] for line in lines)


@examples(12, 600)
def test_any_history_of_the_store_leaves_it_consistent(num):
    run_state_machine_as_test(Histories, settings=settings_of(num, stateful_step_count=25))


# --- damaged files ----------------------------------------------------------------------------


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _latents(folder: Path) -> Callable[[], None]:
    labels = np.arange(6) % 2
    writer = LatentWriter(folder, labels, shard_size=4)
    writer.add(torch.arange(6), torch.from_numpy(_random(6, 1, 2, 2)).float())
    writer.finish()

    def read() -> None:
        found = StoredLatents(folder)
        positions, latents = found.of_class(0)
        assert latents.shape == (len(positions), *found.shape) and list(found.pieces(1))

    return read


def _codebooks(folder: Path) -> Callable[[], None]:
    path = folder / "codebooks.safetensors"
    labels, index, counts, sources = torch.arange(12).view(4, 3)
    codebooks = ClassCodebooks(
        latents=torch.zeros(3, 2), labels=labels, index=index, counts=counts, sources=sources
    )
    codebooks.save(path, {"a": 1})
    return lambda: len(ClassCodebooks.load(path))


def _distilled(folder: Path) -> Callable[[], None]:
    names = ["cat", "dog"]
    files = [file_name(label, 0, names) for label in (0, 1)]
    for file in files:
        write_png(folder / file, torch.from_numpy(_random(3, 4, 4)))
    columns = {"file_name": files, "label": [0, 1], "weight": [1.0, 1.0], "count": [3, 4]}
    write_metadata(folder, columns, names, torch.full((2, 2), 0.5), 20.0)

    def read() -> None:
        data = load_distilled(folder)
        for i in range(len(data)):
            image, label, weight = data[i]
            assert (
                image.min() >= 0
                and image.max() <= 1
                and 0 <= label < len(data.class_names)
                and np.isfinite(weight)
            )
        data.training_set(4)

    return read


def _image_set(folder: Path) -> Callable[[], None]:
    columns = {name: torch.arange(2) for name in ("labels", "index", "counts", "sources")}
    write_image_set(folder, torch.rand(2, 1, 4, 4), ["cat", "dog"], **columns)

    def read() -> None:
        images = ImageSet.load(folder)
        assert images.pixels().isfinite().all() and min(images.labels) >= 0
        images.pixels(8)

    return read


def _inversions(folder: Path) -> Callable[[], None]:
    both = {"mean": torch.rand(2, 4, 3, 3), "std": torch.rand(2, 4, 3, 3)}
    save_file(both, folder / "statistics.safetensors")

    def read() -> None:
        means, stds = read_statistics(folder, (2, 4, 3, 3))
        assert means.isfinite().all() and (stds >= 0).all()

    return read


def _parquet(folder: Path) -> Callable[[], None]:
    Image.fromarray(_random(4, 4, 3)).save(folder.parent / "image.png")
    image = {"bytes": (folder.parent / "image.png").read_bytes(), "path": "a.png"}
    table = pa.table({"image": [image] * 4, "label": [0, 1, 0, 1]})
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    for split in ("train", "test"):
        pq.write_table(table, folder / f"{split}.parquet")
    return partial(_look, partial(ParquetImages, "p", 4, 3, root=str(folder)), folder)


def _idx(folder: Path) -> Callable[[], None]:
    for part, num in (("train", 20), ("t10k", 10)):
        images = struct.pack(">IIII", 0x803, num, 28, 28) + _random(num, 784).tobytes()
        labels = struct.pack(">II", 0x801, num) + bytes(i % 10 for i in range(num))
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return partial(_look, partial(FashionMNIST, "f", 28, 1, root=str(folder)), folder)


def _look(data: Callable, folder: Path) -> None:
    """Scan and read a data set as the index stage does; unreadable images are left out."""
    spec = data(on_bad_image="skip")
    spec.fingerprint()
    with TemporaryDirectory() as parts:
        scan = scan_images(spec, Path(parts))
    assert np.isfinite(scan.moments).all() and scan.moments.shape[1] == len(scan.digests) == len(
        spec.opened.labels
    )
    assert all(spec.opened.describe(i) in line for i, line in scan.errors.items())


def _archive(folder: Path) -> Callable[[], None]:
    """A plain NumPy archive of a teacher's weights."""
    path = folder / "weights.npz"
    np.savez(path, **{name: value.numpy() for name, value in ResNet(8, 10).state_dict().items()})
    return lambda: CIFARResNet(str(path), num_classes=10, depth=8)


def _order(folder: Path) -> Callable[[], None]:
    """The class of every output of a teacher."""
    (folder / "order.json").write_text('["b", "a", "ü"]', encoding="utf-8")
    space = LabelSpace.from_classes(["a", "b", "ü"])

    def read() -> None:
        outputs_of_classes(
            read_order(str(folder / "order.json"), "teacher.order"), space, 3, "teacher.order"
        )

    return read


def _run(folder: Path) -> Callable[[], None]:
    run = folder / "runs" / "a"
    run.mkdir(parents=True)
    counts = {"encode": {"total": 2, "done": 1, "hit": 0}}
    nodes = {"total": 2, "done": 1, "seconds": 3.5}
    items = {"what": "x", "done": 3, "total": 9, "rate": 2.5}
    status = {
        "state": "running",
        "until": "report",
        "stages": counts,
        "stage": "encode",
        "title": "t",
        "nodes": nodes,
    }
    status |= {
        "items": items,
        "waiting": None,
        "started": 1.7e9,
        "host": "h",
        "pid": 1,
        "slurm_job": None,
    }
    (run / "status.json").write_text(json.dumps(status | {"updated": 1.7e9 + 9, "error": None}))
    row = {"table": "main", "split": "test", "arm": "ddoq", "top1": 0.5}
    (run / "results.jsonl").write_text((json.dumps(row) + "\n") * 2)
    (folder / "sweeps" / "s").mkdir(parents=True)
    sweep = {
        "points": [{"run": "a", "overrides": ["ipc=1"]}],
        "created": 1.7e9,
        "command": "ddoq",
        "until": "report",
    }
    (folder / "sweeps" / "s" / "sweep.json").write_text(json.dumps(sweep))

    def read() -> None:
        for name in ("s", "a", None):
            view = find(folder, name)()
            Console(file=StringIO(), width=100).print(frame(view, 100, 20))
            page_of(view)

    return read


def _store(folder: Path) -> Callable[[], None]:
    node = NODES[0]
    Store(folder).ensure(node, lambda place: {"n": (place / "a").write_text("x")})

    def read() -> None:
        store = Store(folder)
        assert Ledger(store).estimate(NODES).counts
        if store.has(node):
            assert (store.path(node) / "a").stat().st_size == store.manifest(node)["files"]["a"][
                "bytes"
            ]

    return read


READERS = (
    _latents,
    _codebooks,
    _distilled,
    _image_set,
    _inversions,
    _parquet,
    _idx,
    _archive,
    _order,
    _run,
    _store,
)


@pytest.mark.parametrize("prepare_files", READERS, ids=lambda one: one.__name__.strip("_"))
@examples(25, 4_000)
def test_any_damage_to_a_file_is_read_or_refused(num, prepare_files, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    read = prepare_files(folder)
    read()
    whole = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

    @holds(num, st.sampled_from(list(whole)), st.data())
    def holds_for(path, data):
        content, is_there = data.draw(damaged(whole[path])), data.draw(st.integers(0, 9))
        path.unlink()  # a new file: what was read before may still be mapped
        if is_there:
            path.write_bytes(content)
        try:
            with two_lines_or_nothing():
                read()
        finally:
            path.unlink(missing_ok=True)
            path.write_bytes(whole[path])


def _idx_of(header: bytes, items: bytes) -> bytes:
    return gzip.compress(header + items)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        # would ask for gigabytes
        (_idx_of(struct.pack(">II", 0x801, 2**32 - 1), b"\0"), "a header of"),
        # unpacks to more than announced
        (_idx_of(struct.pack(">II", 0x801, 10), bytes(2**24)), "not the 10 bytes"),
        (_idx_of(struct.pack(">II", 0x801, 20), bytes([200] * 20)), "label 200"),
        (_idx_of(struct.pack(">II", 0x801, 19), bytes(19)), "30 images and 29 labels"),
        (_idx_of(b"", b""), "not enough values"),
        # zlib.error is no OSError
        (gzip.compress(bytes(99))[:-20] + b"\xff" * 20, "cannot be read"),
    ],
    ids=["huge", "bomb", "label", "fewer", "empty", "zlib"],
)
def test_what_was_found_in_idx_files(content, cause, tmp_path):
    read = _idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=cause):
        read()


_PNG = {"bytes": b"x", "path": "a.png"}
_NAMES = b'{"info": {"features": {"label": {"names": ["a", "b"]}}}}'


@pytest.mark.parametrize(
    ("columns", "metadata", "cause"),
    [
        ({"image": [_PNG] * 2, "label": [0, None]}, None, "rows without a label"),
        ({"image": [_PNG] * 2, "label": [[0], [1, 2]]}, None, "cannot be read"),
        ({"image": [1, 2], "label": [0, 1]}, None, "holds int64, no encoded images"),
        ({"image": [{"path": "a"}] * 2, "label": [0, 1]}, None, "no encoded images"),
        ({"image": [_PNG] * 2, "label": [0, 1]}, b"[1]", "cannot be read"),
        ({"image": [_PNG] * 2, "label": [0, 1]}, b"[" * 99_999, "nested too deeply"),
        (
            {"image": [_PNG] * 2, "label": [0, -1]},
            b'{"info": {"features": {"label": {"names": ["a", "b"]}}}}',
            "label -1",
        ),
    ],
)
def test_what_was_found_in_parquet_files(columns, metadata, cause, tmp_path):
    table = pa.table(columns).replace_schema_metadata(metadata and {"huggingface": metadata})
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(DataError, match=cause):
        ParquetImages("p", 4, 3, root=str(tmp_path)).open()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"file_name": ["../secret.png", "1_dog/00000.png"]}, "outside its folder"),
        ({"file_name": ["/etc/hostname", "1_dog/00000.png"]}, "outside its folder"),
        ({"label": [0, 2]}, "wrong labels or weights"),
        ({"weight": [1.0, float("nan")]}, "wrong labels or weights"),
        ({"label": [0, None]}, "metadata.parquet cannot be read"),
    ],
)
def test_what_was_found_in_distilled_folders(change, cause, tmp_path):
    _distilled(tmp_path)
    columns = pq.read_table(tmp_path / "metadata.parquet").to_pydict()
    pq.write_table(pa.table(columns | change), tmp_path / "metadata.parquet")
    with pytest.raises(DataError, match=cause):
        load_distilled(tmp_path)


def test_soft_labels_of_another_shape_are_refused(tmp_path):
    _distilled(tmp_path)
    save_file(
        {"targets": torch.ones(3, 2)},
        tmp_path / "targets.safetensors",
        metadata={"temperature": "20"},
    )
    with pytest.raises(DataError, match="targets.safetensors cannot be read"):
        load_distilled(tmp_path).training_set()


def test_a_header_that_claims_a_terabyte_is_refused_and_costs_nothing(tmp_path):
    header = {"latents": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}
    text = json.dumps(header).encode()
    (tmp_path / "codebooks.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(StoreError, match="codebooks.safetensors cannot be read"):
        ClassCodebooks.load(tmp_path / "codebooks.safetensors")
    npy = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(118)
    )
    with zipfile.ZipFile(tmp_path / "weights.npz", "w") as archive:
        archive.writestr("linear.weight.npy", npy)
    with pytest.raises(DataError, match="no NumPy archive"):
        CIFARResNet(str(tmp_path / "weights.npz"), num_classes=10, depth=8)


@pytest.mark.parametrize(
    "weights", [{"a": torch.ones(1)}, [1, 2], torch.ones(2), {"0.weight": "x"}]
)
def test_weights_of_another_network_are_refused(weights, tmp_path):
    for name in ("taef2_encoder.pth", "taef2_decoder.pth"):
        torch.save(weights, tmp_path / name)
    with pytest.raises(DataError, match="encoder.path: "):
        TAEF2(str(tmp_path))


_ENTRY = b'{"data": "d", "stage": "encode", "title": "", "seconds": %s}'


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"[" * 99_999,
        b"[]",
        *(_ENTRY % seconds for seconds in (b'"x"', b"null", b"NaN", b"9" * 400)),
    ],
    ids=range(7),
)
def test_a_line_of_the_ledger_that_says_nothing_is_passed_over(line, tmp_path):
    store, node = Store(tmp_path), NODES[0]
    store.ensure(node, lambda folder: {})
    with (tmp_path / "ledger.jsonl").open("ab") as ledger:
        ledger.write(line + b"\n")
    assert Ledger(store).estimate([node]).num_unknown == 0


@pytest.mark.parametrize(
    "text", ["[]", "null", '{"files": []}', '{"files": {"a": 1}}', "[" * 99_999], ids=range(5)
)
def test_a_manifest_that_is_none_is_no_artefact(text, tmp_path):
    store, node = Store(tmp_path), NODES[0]
    store.ensure(node, lambda folder: {})
    (store.path(node) / "manifest.json").write_text(text)
    assert not store.has(node)
    with pytest.raises(StoreError):
        store.manifest(node)


@pytest.mark.parametrize(
    ("override", "cause"),
    [
        ("~quantizer", "quantizer: no value"),
        ("dataset.name=../../x", "dataset.name: '../../x' is no name"),
    ],
)
def test_the_command_line_says_so_in_two_lines_and_leaves_nothing(override, cause, tmp_path):
    done = ddoq(override, f"paths.outputs={tmp_path / 'outputs'}")
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == 2 and cause in lines[0], done.stderr
    assert not list(tmp_path.iterdir())
