"""What readable data can have wrong with them:
scales of deep pictures, pictures on both sides of a split.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageEnhance

from ddoq.data.copies import look_alike, nearest_hashes, perceptual_hash
from ddoq.data.deep import DeepImageError, common_range
from ddoq.data.images import to_uint8
from ddoq.errors import ConfigError, DataError
from support.runs import run_here

SMALL = (
    "encoder=pixels",
    "generator=decode",
    "protocol=smoke",
    "student=convnet_d3_w16",
    "baselines=none",
    "ablation=none",
    "measure.curve=[]",
    "measure.num_folds=0",
    "dataset.image_size=16",
    "ipc=2",
)


def textured(seed: int, size: int = 16) -> np.ndarray:
    """A picture of its own, smooth enough to survive compression: uint8 ``[size, size, 3]``."""
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def folder_of(root: Path, split: str, num: int, first: int = 0) -> Path:
    for label, name in enumerate("ab"):
        place = root / split / name
        place.mkdir(parents=True, exist_ok=True)
        for i in range(first, first + num):
            Image.fromarray(textured(1000 * label + i)).save(place / f"{i:03d}.png")
    return root


def index_of(root: Path, outputs: Path, *overrides: str) -> dict:
    """Index a folder; return the facts of its index and of its audit, and the rows of its index."""
    run_here(
        "dataset=image_folder",
        *SMALL,
        f"dataset.root={root}",
        f"paths.outputs={outputs}",
        "run.until=index",
        *overrides,
    )
    stages = {}
    for stage in ("index", "audit"):
        (manifest,) = (outputs / "store" / stage).glob("*/manifest.json")
        stages[stage] = json.loads(manifest.read_text())["facts"]
    (table,) = (outputs / "store" / "index").glob("*/index.parquet")
    return stages | {"rows": pq.read_table(table).to_pylist()}


# --- scales of deep pictures ------------------------------------------------------------------


@pytest.mark.parametrize(
    "extremes, expected",
    [
        ([(0, 4000), (3, 120)], (0, 4095)),  # the dark one does not get a scale of its own
        ([(0, 255)], (0, 255)),
        ([(0, 256)], (0, 1023)),
        ([(0, 65535), (0, 1)], (0, 65535)),
        ([(0.0, 1.0001)], (0, 1)),
        ([(-1.0, 1.0), (0.0, 0.5)], (-1, 1)),
    ],
)
def test_one_range_for_all_deep_pictures(extremes, expected):
    assert common_range(np.array(extremes, float)) == expected


@pytest.mark.parametrize("extremes", [[(-1000, 3000)], [(0, 100_000)], [(-1.0, 2.0)]])
def test_a_range_that_nothing_tells_is_asked_for(extremes):
    with pytest.raises(DataError, match=r"(?s)dataset.pixel_range: 1 pictures.*\[BLACK,WHITE\]"):
        common_range(np.array(extremes, float))


def test_a_deep_picture_has_no_scale_of_its_own():
    deep = Image.fromarray(np.full((8, 8), 200, np.uint16))
    assert to_uint8(deep, 8, 1, pixel_range=(0, 65535)).unique().tolist() == [1]
    assert to_uint8(deep, 8, 1, pixel_range=(0, 255)).unique().tolist() == [200]
    with pytest.raises(DeepImageError):
        to_uint8(deep, 8, 1)
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(Image.fromarray(np.full((8, 8), np.nan, np.float32)), 8, 1, pixel_range=(0, 1))


def test_a_dark_exposure_stays_darker_than_a_bright_one(tmp_path):
    for name, top in (("dark", 200), ("bright", 4000)):
        place = tmp_path / "photos" / name
        place.mkdir(parents=True)
        for i in range(6):
            ramp = np.linspace(0, top - i, 256).reshape(16, 16)
            Image.fromarray(ramp.round().astype(np.uint16)).save(place / f"{i}.png")
    seen = index_of(tmp_path / "photos", tmp_path / "out", "dataset.channels=1")
    facts = seen["index"]
    assert facts["pixel_range"] == [0, 4095] and facts["num_deep"] == 12
    # half of the classes are at 200 / 4095 of the other's brightness:
    # the mean is near a quarter, not a half
    assert facts["mean"][0] == pytest.approx((100 + 2000) / 2 / 4095, rel=0.02)
    encoded = run_here(
        "dataset=image_folder",
        *SMALL,
        f"dataset.root={tmp_path / 'photos'}",
        f"paths.outputs={tmp_path / 'out'}",
        "dataset.channels=1",
        "run.until=label",
    )
    assert encoded  # later stages take the range from the index
    pixels = {
        name: np.mean(
            [
                np.asarray(Image.open(file))
                for file in (tmp_path / "out/store/generate").glob(f"*/*{name}/*")
            ]
        )
        for name in ("dark", "bright")
    }
    assert pixels["dark"] < 10 and pixels["bright"] > 100
    with pytest.raises(ConfigError, match="dataset.pixel_range"):
        index_of(tmp_path / "photos", tmp_path / "out", "dataset.pixel_range=[5,5]")


def test_ordinary_pictures_have_no_range(tmp_path):
    facts = index_of(folder_of(tmp_path / "photos", "train", 5), tmp_path / "out")["index"]
    assert facts["pixel_range"] is None and facts["num_deep"] == 0


# --- pictures on both sides -------------------------------------------------------------------


def test_test_pictures_in_train_are_counted_and_can_be_left_out(tmp_path):
    # 6 and 7 are in both.
    root = folder_of(folder_of(tmp_path / "photos", "train", 8), "test", 4, first=6)
    seen = index_of(root, tmp_path / "keep")
    leak = seen["audit"]["leaks"][0]
    assert (leak["of"], leak["within"], leak["equal"], leak["num"]) == ("test", "train", 4, 8)
    assert "test/a/006.png = " in leak["pictures"][0]
    left = index_of(root, tmp_path / "skip", "dataset.on_leak=skip")
    assert [leak["equal"] for leak in left["audit"]["leaks"]] == [0, 0, 0]
    assert sum(left["index"]["counts"]["test"]) == 8  # the test split stays as it was published
    with pytest.raises(DataError, match=r"(?s)dataset.on_leak: 4 of 8 test pictures.*on_leak=skip"):
        index_of(root, tmp_path / "error", "dataset.on_leak=error")


def test_copies_are_drawn_to_one_side(tmp_path):
    root = folder_of(tmp_path / "photos", ".", 12)
    for file in list(root.rglob("*.png")):
        for copy in "xy":
            shutil.copy(file, file.with_name(f"{file.stem}{copy}.png"))
    seen = index_of(root, tmp_path / "out")
    sides: dict[bytes, set[str]] = {}
    for row in seen["rows"]:
        sides.setdefault(Path(row["name"]).read_bytes(), set()).add(row["split"])
    assert all(len(splits) == 1 for splits in sides.values())
    # Of 72: the share that was asked for, in threes.
    assert sum(seen["index"]["counts"]["test"]) >= 12
    assert [leak["equal"] for leak in seen["audit"]["leaks"]] == [0, 0, 0]


def test_pictures_compressed_again_are_told_and_different_ones_are_not(tmp_path):
    pictures = [textured(i, 32) for i in range(20)]
    changed = []
    for number, picture in enumerate(pictures[:3]):
        image = Image.fromarray(picture)
        image.save(tmp_path / f"{number}.jpg", quality=80)
        changed.append(np.asarray(Image.open(tmp_path / f"{number}.jpg")))
    changed.append(np.asarray(ImageEnhance.Brightness(Image.fromarray(pictures[3])).enhance(0.8)))
    changed += [textured(100 + i, 32) for i in range(5)]
    hashes, others = (
        np.array([perceptual_hash(picture.transpose(2, 0, 1)) for picture in some], np.int64)
        for some in (changed, pictures)
    )
    pairs = nearest_hashes(hashes, others)
    told = look_alike(
        *(np.stack(some)[of] for some, of in zip((changed, pictures), pairs.T, strict=True))
    )
    assert pairs[told].tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]


def test_a_run_says_what_leaks_in_its_rows(tmp_path):
    root = folder_of(folder_of(tmp_path / "photos", "train", 8), "test", 4, first=6)
    folder = run_here(
        "dataset=image_folder", *SMALL, f"dataset.root={root}", f"paths.outputs={tmp_path / 'out'}"
    )
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert {row["num_test_in_train"] for row in rows} == {4}
    assert "4 of 8 test pictures are train pictures, too" in (folder / "report.html").read_text()


def test_an_index_of_before_is_made_again_and_what_it_got_wrong_goes(tmp_path):
    """An old store under today's keys: the first one was right,
    the second drew copies to both sides.
    """
    root, outputs = folder_of(tmp_path / "photos", "train", 10), tmp_path / "out"
    overrides = ("dataset=image_folder", *SMALL, f"dataset.root={root}", f"paths.outputs={outputs}")
    run_here(*overrides, "run.until=quantize")
    (manifest,) = (outputs / "store/index").glob("*/manifest.json")
    encoded = list((outputs / "store/encode").glob("*/*.safetensors"))
    for is_right in (True, False):
        content = json.loads(manifest.read_text())
        del content["facts"]["pixel_range"], content["seal"]
        if not is_right:
            content["facts"]["mean"] = [value * 1.01 for value in content["facts"]["mean"]]
        manifest.write_text(json.dumps(content))
        (manifest.parent / "pictures.parquet").unlink()
        content["files"].pop("pictures.parquet")
        manifest.write_text(json.dumps(content))
        run_here(*overrides, "run.until=index")
        assert "pixel_range" in json.loads(manifest.read_text())["facts"]
        assert all(file.exists() for file in encoded) == is_right
