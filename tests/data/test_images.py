"""Data sets, odd images, splits, latents on disk and the distilled folder."""

from __future__ import annotations

import gzip
import json
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ddoq import load_distilled
from ddoq.data.builtin import CIFAR10, Digits, FashionMNIST
from ddoq.data.distilled import file_name, write_metadata, write_png
from ddoq.data.folder import ImageFolder
from ddoq.data.images import from_unit, to_uint8, to_unit
from ddoq.data.latents import LatentWriter, StoredLatents
from ddoq.data.parquet import ParquetImages
from ddoq.data.splits import assign_splits
from ddoq.errors import DataError


def picture(shade: int = 100, size=(20, 12), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, shade if mode in ("L", "P") else (shade,) * len(mode))


def folder_of(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            picture(10 * i).save(root / name / f"{i}.png")
    return root


def splits(spec) -> Counter:
    source = spec.open()
    split = assign_splits(source, np.ones(len(source.labels), bool), spec)
    return Counter(zip(source.labels.tolist(), split.tolist(), strict=True))


# --- sources ----------------------------------------------------------------------------------


def test_digits_are_complete_and_fingerprinted():
    spec = Digits("digits", 8, 1)
    source = spec.open()
    assert len(source.labels) == 1797 and source.class_names == [str(i) for i in range(10)]
    assert to_uint8(source.read(0), 8, 1).max() == 255 * 15 // 16
    assert spec.fingerprint() == Digits("other", 8, 1).fingerprint()


def test_folder_without_splits_keeps_a_training_image_in_every_class(tmp_path):
    root = folder_of(tmp_path, {"cat": 20, "dog": 3, "emu": 1})
    spec = ImageFolder("f", 8, 3, root=str(root), test_fraction=0.5, validation_fraction=0.4)
    found = splits(spec)
    assert (found[0, "train"], found[0, "validation"], found[0, "test"]) == (6, 4, 10)
    assert found[1, "train"] >= 1 and found[2, "train"] == 1
    assert splits(spec) == found  # seeded


def test_folder_with_val_only_tests_on_val(tmp_path):
    folder_of(tmp_path / "train", {"cat": 10, "dog": 10})
    folder_of(tmp_path / "val", {"cat": 4, "dog": 5})
    found = splits(ImageFolder("f", 8, 3, root=str(tmp_path)))
    assert found[0, "test"] == 4 and found[1, "test"] == 5 and found[0, "validation"] == 1


def test_train_limit_is_per_class_and_leaves_other_splits_alone(tmp_path):
    root = folder_of(tmp_path, {"cat": 20, "dog": 30})
    found = splits(ImageFolder("f", 8, 3, root=str(root), train_per_class=5))
    assert found[0, "train"] == found[1, "train"] == 5 and found[1, "test"] == 6


def test_fingerprint_follows_content_not_place(tmp_path):
    a, b = (folder_of(tmp_path / name, {"cat": 2, "dog": 2}) for name in "ab")
    spec_a, spec_b = (ImageFolder("f", 8, 3, root=str(root)) for root in (a, b))
    before = spec_a.fingerprint()
    assert before == spec_b.fingerprint()
    data = bytearray((b / "cat" / "0.png").read_bytes())
    data[-20] ^= 1  # same name, same size
    (b / "cat" / "0.png").write_bytes(data)
    assert spec_b.fingerprint() != before


def test_empty_class_and_empty_folder_are_named(tmp_path):
    folder_of(tmp_path / "a", {"cat": 2, "dog": 0})
    with pytest.raises(DataError, match="'dog'"):
        ImageFolder("f", 8, 3, root=str(tmp_path / "a")).open()
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        ImageFolder("f", 8, 3, root=str(tmp_path / "b")).open()


def test_parquet_in_the_hugging_face_form(tmp_path):
    (tmp_path / "x.png").parent.mkdir(exist_ok=True)
    picture().save(tmp_path / "x.png")
    image = {"bytes": (tmp_path / "x.png").read_bytes(), "path": "x.png"}
    features = {"info": {"features": {"label": {"names": ["zebra", "ant"], "_type": "ClassLabel"}}}}
    for name, labels in (("train-00000-of-00001", [0, 1, 1]), ("validation", [1, 0])):
        table = pa.table({"image": [image] * len(labels), "label": labels})
        pq.write_table(
            table.replace_schema_metadata({"huggingface": json.dumps(features)}),
            tmp_path / f"{name}.parquet",
        )
    source = ParquetImages("p", 8, 3, root=str(tmp_path)).open()
    assert source.class_names == ["zebra", "ant"] and source.labels.tolist() == [0, 1, 1, 1, 0]
    assert source.split.tolist() == ["train"] * 3 + ["test"] * 2
    assert to_uint8(source.read(4), 8, 3).shape == (3, 8, 8)
    with pytest.raises(DataError, match="label_column.*'labl'.*\n.*did you mean 'label'"):
        ParquetImages("p", 8, 3, root=str(tmp_path), label_column="labl").open()


def test_fashion_mnist_from_idx_files_and_the_error_without_them(tmp_path):
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, number in (("train", 20), ("t10k", 10)):
        header = struct.pack(">IIII", 0x803, number, 28, 28)
        pixels = np.arange(number * 784, dtype=np.uint32).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(header + pixels.tobytes())
        )
        header = struct.pack(">II", 0x801, number)
        labels = (np.arange(number) % 10).astype(np.uint8)
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(header + labels.tobytes())
        )
    source = FashionMNIST("f", 28, 1, search=(tmp_path / "nothing", tmp_path)).open()
    assert source.labels.tolist() == [i % 10 for i in range(20)] + list(range(10))
    assert np.asarray(source.read(1))[0, :3].tolist() == [784 % 256, 785 % 256, 786 % 256]
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte.gz into .*nothing/fashion_mnist"):
        FashionMNIST("f", 28, 1, search=(tmp_path / "nothing",), download=False).open()


@pytest.mark.parametrize(
    ("spec", "total", "first", "form"),
    [
        (FashionMNIST("fashion_mnist", 28, 1), 70_000, "Ankle boot", None),
        # exact pixels, found before the JPEG form
        (CIFAR10("cifar10", 32, 3), 60_000, "truck", None),
        (CIFAR10("cifar10", 32, 3), 60_000, "frog", "cifar10_jpeg"),
    ],
)
def test_real_data_sets_open(shared, spec, total, first, form):
    spec.search, spec.root = (shared,), form and str(shared / form)
    source = spec.open()
    assert source.unexpected_counts is None
    assert len(source.labels) == total and source.class_names[source.labels[0]] == first
    assert to_uint8(source.read(0), spec.image_size, spec.channels).float().std() > 20


# --- odd images -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "I;16", "F"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_the_asked_for_tensor(mode, channels):
    image = (
        picture(100).convert("L").convert(mode) if mode != "CMYK" else picture(100).convert("CMYK")
    )
    tensor = to_uint8(image, 8, channels, pixel_range=(0, 255))
    assert tensor.shape == (channels, 8, 8) and tensor.dtype == torch.uint8


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "x.png")
    tensor = to_uint8(Image.open(tmp_path / "x.png"), 8, 1, pixel_range=(0, 65535))
    assert (tensor.flatten().float() - torch.linspace(0, 255, 64)).abs().max() < 1.5


def test_resize_keeps_the_aspect_ratio():
    """A centred square of a wide image stays a square."""
    image = Image.new("L", (64, 32))
    image.paste(255, (24, 8, 40, 24))
    tensor = to_uint8(image, 16, 1)[0] > 128
    assert tensor.any(0).sum() == tensor.any(1).sum() == 8


def test_unit_range_round_trip_is_exact():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(from_unit(to_unit(pixels)), pixels)


# --- latents ----------------------------------------------------------------------------------


def test_latents_resume_at_the_shard_and_read_by_class(tmp_path):
    labels, values = np.array([0, 1, 2, 1, 0, 1, 2]), torch.randn(7, 2, 3)
    first = LatentWriter(tmp_path, labels, shard_size=3)
    first.add(torch.tensor([1, 0, 2, 4]), values[[1, 0, 2, 4]])  # the second shard stays incomplete
    second = LatentWriter(tmp_path, labels, shard_size=3)
    assert [shard for shard in second.shards() if not second.has(shard)] == [1, 2]
    second.add(torch.tensor([6, 5, 4, 3]), values[[6, 5, 4, 3]])
    assert all(second.has(shard) for shard in second.shards())
    second.finish()
    latents = StoredLatents(tmp_path)
    assert latents.shape == (2, 3) and len(latents) == 7
    positions, of_class = latents.of_class(1)
    assert positions.tolist() == [1, 3, 5] and torch.equal(of_class, values[[1, 3, 5]])


# --- the distilled folder ---------------------------------------------------------------------


@pytest.fixture
def distilled(tmp_path) -> Path:
    names = ["ant", "bee/../../etc"]
    rows = [(c, k) for c in range(2) for k in range(3)]
    files = [file_name(c, k, names) for c, k in rows]
    for i, file in enumerate(files):
        write_png(tmp_path / file, torch.full((3, 8, 8), 40 * i, dtype=torch.uint8))
    columns = {
        "file_name": files,
        "label": [c for c, _ in rows],
        "class_name": [names[c] for c, _ in rows],
        "weight": [0.5, 1.0, 1.5] * 2,
    }
    write_metadata(tmp_path, columns, names, None, 1.0)
    return tmp_path


def test_class_names_cannot_leave_the_folder():
    assert file_name(1, 2, ["a", "../../etc/passwd"]) == "1_etc-passwd/00002.png"
    assert file_name(3, 0, ["é漢字"] * 12) == "03_class/00000.png"


def test_load_distilled_gives_images_labels_weights(distilled):
    data = load_distilled(distilled)
    image, label, weight = data[4]
    assert len(data) == 6 and data.class_names[1].startswith("bee")
    assert image.shape == (3, 8, 8) and image[0, 0, 0].item() == pytest.approx(160 / 255)
    assert (label, weight) == (1, 1.0)
    batch = next(iter(torch.utils.data.DataLoader(data, batch_size=6)))
    assert batch[2].tolist() == [0.5, 1.0, 1.5] * 2
    assert data.training_set().targets[0].tolist() == [1, 0]


def test_image_folder_and_hugging_face_open_it_as_it_is(distilled):
    from datasets import load_dataset
    from torchvision.datasets import ImageFolder as TorchvisionImageFolder

    ours = load_distilled(distilled)
    theirs = TorchvisionImageFolder(distilled)
    assert [label for _, label in theirs.samples] == ours.labels.tolist()
    hub = load_dataset(
        "imagefolder",
        data_dir=str(distilled),
        split="train",
        cache_dir=str(distilled.parent / "cache"),
    )
    assert len(hub) == 6 and sorted(hub["weight"]) == sorted(ours.weights.tolist())
    assert hub[0]["image"].size == (8, 8)
    assert hub.features["label"].names == ours.class_names  # readable ones, not the folders'


def test_a_folder_that_is_no_distilled_set_is_refused(tmp_path):
    with pytest.raises(DataError, match="metadata.parquet"):
        load_distilled(tmp_path)
