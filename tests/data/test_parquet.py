"""Parquet as people have it: which files belong together, which column holds what,
and what a label is.
"""

from __future__ import annotations

import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddoq.data.base import hash_files
from ddoq.data.builtin import CIFAR10, CIFAR100
from ddoq.data.catalogue import CIFAR10 as TEN
from ddoq.data.catalogue import CIFAR100 as HUNDRED
from ddoq.data.folder import ImageFolder
from ddoq.data.parquet import ParquetImages
from ddoq.data.recognised import recognised
from ddoq.data.tiny_imagenet import TinyImageNet
from ddoq.errors import DataError

N = ["zebra", "ant", "yak"]
LABELS = [0, 1, 2] * 2


def encoded(label: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (10 * label, 100, 200)).save(buffer, "PNG")
    return buffer.getvalue()


def table(labels=LABELS, names=None, image="image", label="label", more=None) -> pa.Table:
    """A picture is as red as its position; ``more``: columns besides."""
    images = pa.array([{"bytes": encoded(i), "path": f"{i}.png"} for i in range(len(labels))])
    made = pa.table({image: images, label: labels, **(more or {})})
    features = {"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}}
    return made.replace_schema_metadata({"huggingface": json.dumps(features)} if names else None)


def write(root: Path, tables: dict[str, pa.Table]) -> Path:
    for name, content in tables.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(content, root / f"{name}.parquet")
    return root


def read(root: Path, **options):
    spec = ParquetImages("p", 8, 3, root=str(root), **options)
    spec.fingerprint()
    source = spec.examine()
    counts = dict(zip(*np.unique(source.split, return_counts=True), strict=True))
    return (
        source,
        {str(split): int(count) for split, count in counts.items()},
        recognised(source, spec),
    )


def refused(root: Path, **options) -> DataError:
    with pytest.raises(DataError) as caught:
        read(root, **options)
    assert len(str(caught.value).splitlines()) == 2
    return caught.value


BOTH = {"train": 6, "test": 6}


@pytest.mark.parametrize(
    ("files", "expected", "said"),
    [
        (["data/train-00000-of-00001", "data/test-00000-of-00001"], BOTH, "found in data/"),
        (["default/train/0000", "default/test/0000"], BOTH, "found in default/"),
        (["train/0000", "test/0000"], BOTH, "test 6 (test/0000.parquet)"),
        (["Train", "Test"], BOTH, "test 6 (Test.parquet)"),
        (["mnist-train", "mnist-test"], BOTH, "train 6 (mnist-train.parquet)"),
        (
            ["x_train-0", "x_train-1", "x_test"],
            {"train": 12, "test": 6},
            "x_train-0.parquet …, 2 files",
        ),
        (["train-00000-of-00001-0123456789abcdef", "dev"], BOTH, "test 6 (dev.parquet)"),
        (
            ["train", "train_metadata", "valid_unlabelled"],
            {"train": 6},
            "left aside: train_metadata.parquet, valid_un",
        ),
        (["train", "test", "old/train"], BOTH, "test 6"),
        (["photos"], {"": 6}, "6 images without splits"),
        (["part-00000-of-00002", "part-00001-of-00002"], {"": 12}, "12 images without splits"),
    ],
)
def test_files_of_a_split_are_those_named_so(files, expected, said, tmp_path):
    source, counts, lines = read(write(tmp_path / "p", dict.fromkeys(files, table(names=N))))
    assert source.class_names == N and counts == expected
    assert any(said in line for line in lines), lines


@pytest.mark.parametrize(
    ("files", "cause", "remedy"),
    [
        (["train-00000-of-00002", "test"], "1 of 2 files are missing", "add what is missing"),
        (["train-00000-of-00002", "test"], "train-00001-of-00002.parquet", "add"),
        (
            ["train-clean", "train-noisy", "test"],
            "no train*.parquet",
            "nothing but the number of a shard",
        ),
        (
            ["train", "train_set", "test"],
            "are all train images by their names",
            "move one of them away",
        ),
        (["a-train", "b-train"], "train files of several sets: a, b", "a folder of its own"),
        (["plain/train-0", "noisy/train-0"], "several sets of tables: noisy, plain", "/noisy"),
        (["test"], "no train*.parquet", "name the files train*.parquet"),
    ],
)
def test_files_that_may_not_belong_together_are_refused(files, cause, remedy, tmp_path):
    error = refused(write(tmp_path / "p", dict.fromkeys(files, table(names=N))))
    assert cause in error.cause and remedy in error.remedy


def test_one_file_is_read_unless_it_is_one_of_several(tmp_path):
    root = write(
        tmp_path / "p", {"train": table(names=N), "test": table(names=N), "alone/x": table(names=N)}
    )
    assert read(root / "alone" / "x.parquet")[1] == {"": 6}
    remedy = refused(root / "train.parquet").remedy
    (option,) = [word for word in shlex.split(remedy) if word.startswith("dataset.root=")]
    assert read(Path(option.partition("=")[2]))[1] == BOTH


def test_what_datasets_saves_is_read_as_it_lies_there(tmp_path):
    from datasets import ClassLabel, Dataset, DatasetDict, Features
    from datasets import Image as Picture

    features = Features({"image": Picture(), "label": ClassLabel(names=N)})
    pictures = [Image.new("RGB", (8, 8), (10 * i, 0, 0)) for i in range(6)]
    saved = Dataset.from_dict({"image": pictures, "label": LABELS}, features=features)
    DatasetDict(train=saved, test=saved).save_to_disk(tmp_path / "both")
    saved.save_to_disk(tmp_path / "one")
    source, counts, _ = read(tmp_path / "both")
    assert source.class_names == N and counts == BOTH and source.labels.tolist() == LABELS * 2
    assert np.asarray(source.read(8))[0, 0, 0] == 20
    assert read(tmp_path / "one")[1] == {"": 6}
    for name in ("both", "one"):
        with pytest.raises(
            DataError, match=rf"\n.*dataset=parquet dataset.root={tmp_path}/{name}$"
        ):
            ImageFolder("f", 8, 3, root=str(tmp_path / name)).fingerprint()


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([[c] for c in LABELS], ["0", "1", "2"]),
        ([float(c) for c in LABELS], ["0.0", "1.0", "2.0"]),
        ([bool(c) for c in LABELS], ["False", "True"]),
        ([N[c].encode() for c in LABELS], ["ant", "yak", "zebra"]),
        (pa.array([N[c] for c in LABELS]).dictionary_encode(), ["ant", "yak", "zebra"]),
        ([c + 1 for c in LABELS], ["1", "2", "3"]),
        ([7 * c for c in LABELS], ["0", "7", "14"]),
        ([2 * c - 1 for c in (0, 1)] * 3, ["-1", "1"]),
    ],
)
def test_one_label_per_image_of_any_kind_is_read(labels, names, tmp_path):
    source, _, _ = read(write(tmp_path / "p", {"train": table(labels), "test": table(labels)}))
    assert source.class_names == names
    plain = [
        value[0] if isinstance(value, list) else value for value in pa.array(labels).to_pylist()
    ]
    shown = [value.decode() if isinstance(value, bytes) else str(value) for value in plain]
    assert [source.class_names[label] for label in source.labels] == shown * 2


@pytest.mark.parametrize(
    ("train", "test", "cause"),
    [
        (table([[c, 0] for c in LABELS]), None, "several labels"),
        (table([float("nan") if c == 2 else float(c) for c in LABELS]), None, "2 labels are NaN"),
        (table([0.5 * c for c in LABELS]), None, "no whole numbers"),
        (
            table(),
            table([str(c) for c in LABELS]),
            "numbers in train.parquet, text in test.parquet",
        ),
        (table(names=N), table([-1] * 6, names=N), "test.parquet are -1: it has none"),
        (table(), table([-1] * 6), "test.parquet are -1: it has none"),
        (
            table([N[c] for c in LABELS]),
            table([N[c] + " " for c in LABELS]),
            "train has 'ant', not 'ant '",
        ),
        (table(names=["cat", "dog", "cat"]), None, "'cat' is the name of 2 classes"),
        (table(names=N), table(names=sorted(N)), "name the classes differently"),
        (
            table(names=N),
            table([0, 1] * 3, names=N),
            "no usable test images in 1 of 3 classes: 'yak'",
        ),
    ],
)
def test_labels_that_would_be_guesses_are_refused(train, test, cause, tmp_path):
    tables = {"train": train} | ({"test": test} if test else {})
    assert cause in refused(write(tmp_path / "p", tables)).cause


def test_an_unlabelled_test_file_can_be_left_out_as_the_remedy_says(tmp_path):
    tables = {
        "train": table(names=N),
        "validation": table(names=N),
        "test": table([-1] * 6, names=N),
    }
    root = write(tmp_path / "p", tables)
    name, place = re.search(r"move (\S+) out of ([^;]+);", refused(root).remedy).groups()
    (Path(place) / name).rename(tmp_path / name)
    assert read(root)[1] == BOTH


def test_integer_widths_and_missing_class_names_go_together_and_the_latter_is_said(tmp_path):
    tables = {
        "train-0": table(pa.array(LABELS, pa.int32()), N),
        "train-1": table(),
        "test": table(names=N),
    }
    source, counts, lines = read(write(tmp_path / "p", tables))
    assert source.class_names == N and counts == {"train": 12, "test": 6}
    assert "train-1.parquet names no classes: its numbers are taken for train-0.parquet's" in lines


def test_numbers_as_text_have_two_orders(tmp_path):
    labels = [str(i) for i in range(12)]
    root = write(tmp_path / "p", {"train": table(labels), "test": table(labels)})
    source, _, lines = read(root)
    assert source.class_names == sorted(labels) and any(
        "dataset.class_order=number" in line for line in lines
    )
    source, _, _ = read(root, class_order="number")
    assert source.class_names == labels and source.labels.tolist() == [*range(12)] * 2


@pytest.mark.parametrize(
    ("columns", "key"),
    [({"image": "img"}, "image_column=img"), ({"label": "labels"}, "label_column=labels")]
    + [
        ({"image": "image.bytes"}, "image_column=image.bytes"),
        ({"label": "fine_label"}, "label_column=fine_label"),
    ],
)
def test_a_column_of_another_name_is_named_as_the_option_that_reads_it(columns, key, tmp_path):
    made = table(names=N, more={"coarse": [0] * 6}, **columns)
    if "image.bytes" in columns.values():
        made = made.set_column(0, "image.bytes", pa.array([encoded(i) for i in range(6)]))
    root = write(tmp_path / "p", {"train": made, "test": made})
    error = refused(root)
    assert error.remedy.endswith(f"dataset.{key}")
    name, value = key.split("=")
    assert read(root, **{name: value})[1] == BOTH


# --- published names --------------------------------------------------------------------------


def published(root: Path, names: list[str], label: str = "label", image: str = "img") -> Path:
    labels = list(range(len(names)))
    made = table(labels, names, image, label, {"coarse_label": [0] * len(labels)})
    return write(root, {"data/train-00000-of-00001": made, "data/test-00000-of-00001": made})


@pytest.mark.parametrize(
    ("kind", "names", "label"),
    [(CIFAR10, TEN, "label"), (CIFAR100, HUNDRED, "fine_label")],
    ids=["10", "100"],
)
def test_cifar_as_the_hub_has_it_is_read_and_its_counts_are_named(kind, names, label, tmp_path):
    spec = kind("c", 32, 3, root=str(published(tmp_path / "c", names, label)), download=False)
    spec.fingerprint()
    source = spec.examine()
    assert source.class_names == names and source.labels.tolist() == [*range(len(names))] * 2
    assert (
        f"{len(names)} training images where CIFAR-{len(names)} has 50,000"
        in source.unexpected_counts
    )
    lines = recognised(source, spec)
    assert source.unexpected_counts in lines and (f"labels: column {label}" in lines) == (
        label == "fine_label"
    )


@pytest.mark.parametrize(
    "names", [[*TEN, "frigate", "tank"], N, [TEN[1], TEN[0], *TEN[2:]], [str(i) for i in range(9)]]
)
def test_other_classes_under_a_published_name_are_refused(names, tmp_path):
    root = published(tmp_path / "c", names)
    with pytest.raises(DataError, match=f"has {len(names)} classes.*CIFAR-10 10 classes") as caught:
        CIFAR10("c", 32, 3, root=str(root), download=False).open()
    options = dict(
        word.removeprefix("dataset.").split("=")
        for word in shlex.split(caught.value.remedy)
        if "=" in word
    )
    assert options.pop("dataset") == "parquet"
    assert read(Path(options.pop("root")), **options)[0].class_names == names


@pytest.mark.parametrize("names", [[f"class {i}" for i in range(10)], ["plane", "car", *TEN[2:]]])
def test_other_words_for_the_same_classes_are_no_other_classes(names, tmp_path):
    root = published(tmp_path / "c", names)
    assert CIFAR10("c", 32, 3, root=str(root), download=False).open().class_names == names


def test_a_folder_of_cifar_keeps_its_fingerprint(tmp_path):
    made = table(list(range(10)), TEN)
    root = write(tmp_path / "c", {"train": made, "test": made})
    (root / "SOURCE.md").write_text("where it is from")
    files = [root / name for name in ("train.parquet", "test.parquet", "SOURCE.md")]
    assert CIFAR10("c", 32, 3, root=str(root)).fingerprint() == hash_files(files, root)


def test_tiny_imagenet_may_be_sorted_and_has_wordnet_ids(tmp_path):
    wnids = ("n01443537", "n01629819")
    for part, number in (("train", 3), ("val", 2)):
        for wnid in wnids:
            for i in range(number):
                file = tmp_path / "t" / part / wnid / "images" / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(encoded(i))
    source = TinyImageNet("t", 8, 3, root=str(tmp_path / "t")).open()
    assert source.class_names == list(wnids) and source.labels.tolist() == [
        0,
        0,
        0,
        1,
        1,
        1,
        0,
        0,
        1,
        1,
    ]
    assert source.split.tolist() == ["train"] * 6 + ["test"] * 4
    assert "2 classes where Tiny-ImageNet has 200" in source.unexpected_counts
    (tmp_path / "t" / "train" / wnids[0]).rename(tmp_path / "t" / "train" / "goldfish")
    with pytest.raises(DataError, match="'goldfish'.*\n.*dataset=image_folder dataset.root="):
        TinyImageNet("t", 8, 3, root=str(tmp_path / "t")).open()


@pytest.mark.parametrize("as_text", [False, True])
def test_paths_in_place_of_images_are_told_apart_and_the_remedy_works(as_text, tmp_path):
    """What `Dataset.to_parquet` writes of images that were files."""
    datasets = pytest.importorskip("datasets")
    files = []
    for number, label in enumerate(LABELS):
        files.append(str(tmp_path / f"{number}.png"))
        Path(files[-1]).write_bytes(encoded(label))
    named = datasets.Dataset.from_dict({"image": files, "label": LABELS})
    images = named.cast_column("image", datasets.Image())
    (tmp_path / "paths").mkdir()
    (named if as_text else images).to_parquet(tmp_path / "paths" / "train.parquet")
    error = refused(tmp_path / "paths")
    assert "holds paths" in error.cause and "dataset.image_column" in error.cause
    code = error.remedy.partition("embed them: ds.")[2]
    assert code.startswith("with_format(")
    embedded = eval(f"images.{code}", {"images": images, "datasets": datasets})
    (tmp_path / "embedded").mkdir()
    embedded.to_parquet(tmp_path / "embedded" / "train.parquet")
    assert read(tmp_path / "embedded")[1] == {"train": len(LABELS)}
