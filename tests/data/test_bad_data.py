"""Bad data: every kind has a defined outcome, and none of them is a wrong label.

The pictures of a class are noise that is brightest in the channel of the label,
so that a label is seen to be right.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torch._utils import ExceptionWrapper

from ddoq.data.base import ImageDataset
from ddoq.data.folder import ImageFolder
from ddoq.data.indexed import INDEX, IndexedImages
from ddoq.data.parquet import ParquetImages
from ddoq.errors import DataError, DdoqError
from ddoq.stages.index import run
from ddoq.stages.runtime import Runtime
from support.processes import ddoq, without_rights
from support.runs import run_here

CLASSES = ("cat", "dog")
NUM = 6  # good images of each


def picture(label: int = 0, seed: int = 0, side: int = 16) -> Image.Image:
    pixels = np.random.default_rng([seed, label]).integers(0, 90, (side, side, 3), np.uint8)
    pixels[..., label] += 150
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def good_folder(root: Path, num: int = NUM) -> Path:
    for label, name in enumerate(CLASSES):
        for i in range(num):
            put(root / name / f"{i}.png", encoded(picture(label, i)))
    return root


def index_of(spec: ImageDataset, out: Path, num_workers: int = 0) -> dict:
    out.mkdir(parents=True, exist_ok=True)
    spec.fingerprint()  # as a run does first
    return run(None, {}, out, Runtime(dataset=spec, models=None, num_workers=num_workers))


def rows_of(out: Path, root: Path) -> list[tuple]:
    """Return what is indexed, but for where the folder is."""
    columns = pq.read_table(out / INDEX).to_pydict()
    names = [name.removeprefix(str(root)) for name in columns["name"]]
    return list(zip(names, columns["label"], columns["split"], strict=True))


def check_labels(spec: ImageDataset, out: Path) -> int:
    """Return how many images are indexed; each is brightest in the channel of its label."""
    num = 0
    for split in ("train", "validation", "test"):
        images, labels = IndexedImages(spec, out, split).tensors()
        assert images.float().mean((2, 3)).argmax(1).tolist() == labels.tolist()
        num += len(labels)
    return num


def two_lines(caught: pytest.ExceptionInfo) -> str:
    assert len(str(caught.value).splitlines()) == 2
    return str(caught.value)


# --- folders ----------------------------------------------------------------------------------


def bomb() -> bytes:
    """A PNG of a hundred bytes that says it is 60,000 pixels wide and high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def bind_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket may have 108 characters
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def raw_name(root: Path, name: bytes) -> None:
    path = os.fsencode(root) + b"/" + name
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(encoded(picture(0, 50)))


CAT = encoded(picture(0, 50))
JPEG = encoded(picture(0, 50, 200), "JPEG")
LARGE = encoded(picture(0, 50, 64))

#: What is put into a good folder, by kind, and what is said about it:
#: it is left out, or it stops the run.
UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated PNG": (lambda r: put(r / "cat/x.png", LARGE[:400]), "truncated"),
    "truncated JPEG": (lambda r: put(r / "cat/x.jpg", JPEG[: len(JPEG) // 2]), "truncated"),
    "zero bytes": (lambda r: put(r / "cat/x.png", b""), "no image of a known kind"),
    "text called .jpg": (lambda r: put(r / "cat/x.jpg", b"hello"), "no image of a known kind"),
    "bomb": (lambda r: put(r / "cat/x.png", bomb()), "DecompressionBombError"),
    "a header no reader foresees": (
        lambda r: put(r / "cat/z.ppm", b"P6 12 12 0\n" + b"a" * 500),
        "ValueError",
    ),
    "a broken bitmap": (lambda r: put(r / "cat/z.bmp", b"BM" + b"\xff" * 60), "OSError"),
    "link to nothing": (lambda r: (r / "cat/x.png").symlink_to(r / "none"), "a link to nothing"),
    "link to itself": (lambda r: (r / "cat/x.png").symlink_to("x.png"), "a link to nothing"),
    "pipe": (lambda r: os.mkfifo(r / "cat/x.png"), "neither a file nor a folder"),
    "link to a pipe": (
        lambda r: (os.mkfifo(r / "pipe"), (r / "cat/x.png").symlink_to(r / "pipe")),
        "neither a file nor a folder",
    ),
    "socket": (lambda r: bind_socket(r / "cat/x.png"), "neither a file nor a folder"),
    "device": (lambda r: (r / "cat/x.png").symlink_to("/dev/zero"), "neither a file nor a folder"),
}

#: What changes nothing, and how it is counted in the report; ``None`` where it is nobody's file.
ASIDE: dict[str, tuple[Callable[[Path], object], str | None]] = {
    ".DS_Store": (lambda r: (put(r / ".DS_Store", b"x"), put(r / "cat/.DS_Store", b"x")), None),
    "Thumbs.db": (lambda r: put(r / "cat/Thumbs.db", b"x"), None),
    "AppleDouble": (lambda r: put(r / "cat/._x.jpg", b"x"), "hidden image"),
    "__MACOSX beside the classes": (lambda r: put(r / "__MACOSX/cat/._x.jpg", b"x"), None),
    "__MACOSX in a class": (lambda r: put(r / "cat/__MACOSX/._x.jpg", b"x"), None),
    "hidden folder": (lambda r: put(r / "cat/.ipynb_checkpoints/x.png", CAT), None),
    "hidden class": (lambda r: put(r / ".git/x.png", CAT), None),
    "another kind of file": (lambda r: put(r / "cat/x.heic", b"x"), ".heic"),
    "an image beside the classes": (lambda r: put(r / "x.png", CAT), "image in no class folder"),
    "a folder linked in a circle": (
        lambda r: (r / "cat/x").symlink_to(r / "cat"),
        "link in a circle",
    ),
    "a link to the root": (lambda r: (r / "cat/x").symlink_to(r), "link in a circle"),
    "a pipe without extension": (lambda r: os.mkfifo(r / "cat/x"), "without extension"),
    "a pipe beside the classes": (lambda r: os.mkfifo(r / "x"), None),
}

#: Images like all others: all have the label of their folder.
GOOD: dict[str, Callable[[Path], object]] = {
    "PNG called .jpg": lambda r: put(r / "cat/x.jpg", CAT),
    "JPEG called .PNG": lambda r: put(r / "cat/X.PNG", JPEG),
    "animated": lambda r: put(
        r / "cat/x.gif", encoded(picture(0, 50), "GIF", save_all=True, append_images=[picture(1)])
    ),
    "nested folders": lambda r: put(r / "cat/a/b/x.png", CAT),
    "folder with the name of an image": lambda r: put(r / "cat/y.png/x.png", CAT),
    "link to a file": lambda r: (r / "cat/x.png").symlink_to(put(r.parent / "elsewhere.png", CAT)),
    "link to a folder": lambda r: (r / "cat/x").symlink_to(
        put(r.parent / "elsewhere/x.png", CAT).parent
    ),
    "names that differ in case": lambda r: put(r / "cat/0.PNG", CAT),
    "255 bytes of name": lambda r: put(r / f"cat/{'x' * 251}.png", CAT),
    "a name that is no UTF-8": lambda r: raw_name(r, b"cat/caf\xe9.png"),
    "a name in NFD": lambda r: put(r / "cat/cafe\u0301.png", CAT),
}


def outcomes(root: Path, out: Path) -> tuple[str, dict, ImageFolder]:
    """Return the error of ``on_bad_image=error``, and the facts and data set of ``skip``,
    which goes on from there.
    """
    spec = ImageFolder("f", 8, 3, root=str(root), on_bad_image="error")
    error = ""
    try:
        index_of(spec, out)
    except DdoqError as caught:
        error = str(caught)
    spec = ImageFolder("f", 8, 3, root=str(root), on_bad_image="skip")
    return error, index_of(spec, out), spec


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> list[tuple]:
    """The index of the good folder, without anything else in it."""
    root, out = tmp_path_factory.mktemp("clean"), tmp_path_factory.mktemp("out")
    index_of(ImageFolder("f", 8, 3, root=str(good_folder(root))), out)
    return rows_of(out, root)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_unreadable_images_stop_the_run_or_are_left_out_as_if_they_were_not_there(
    kind, clean, tmp_path
):
    root, (add, reason) = good_folder(tmp_path / "f"), UNREADABLE[kind]
    before = ImageFolder("f", 8, 3, root=str(root)).fingerprint()
    add(root)
    error, facts, spec = outcomes(root, tmp_path / "out")
    assert re.search(
        rf"1 unreadable image: \S+/cat/[xz]\.\w+: .*{reason}.*\n.*dataset.on_bad_image=skip$", error
    )
    assert facts["num_skipped"] == len(facts["skipped"]) == 1 and reason in facts["skipped"][0]
    assert spec.fingerprint() != before  # no index of the good folder is taken for this one
    assert rows_of(tmp_path / "out", root) == clean
    assert check_labels(spec, tmp_path / "out") == 2 * NUM


@pytest.mark.parametrize("kind", ASIDE)
def test_what_is_no_image_is_left_aside_and_counted(kind, clean, tmp_path):
    root, (add, what) = good_folder(tmp_path / "f"), ASIDE[kind]
    add(root)
    error, facts, spec = outcomes(root, tmp_path / "out")
    assert (
        not error and facts["num_skipped"] == 0 and facts["ignored"] == ({what: 1} if what else {})
    )
    assert rows_of(tmp_path / "out", root) == clean and facts["class_names"] == list(CLASSES)
    assert check_labels(spec, tmp_path / "out") == 2 * NUM


@pytest.mark.parametrize("kind", GOOD)
def test_odd_but_good_images_are_all_there_under_their_label(kind, tmp_path):
    root = good_folder(tmp_path / "f")
    GOOD[kind](root)
    error, facts, spec = outcomes(root, tmp_path / "out")
    assert not error and facts["num_skipped"] == 0 and not facts["ignored"]
    assert sum(sum(counts) for counts in facts["counts"].values()) == 2 * NUM + 1
    assert check_labels(spec, tmp_path / "out") == 2 * NUM + 1
    assert sum(label == 0 for _, label, _ in rows_of(tmp_path / "out", root)) == NUM + 1


def rotated() -> bytes:
    orientation = Image.Exif()
    orientation[274] = 6
    image = Image.new("RGB", (16, 16), (200, 0, 0))
    image.paste((0, 0, 200), (8, 0, 16, 16))
    return encoded(image, "PNG", exif=orientation)


def two_colours(mode: str, left, right) -> Image.Image:
    image = Image.new(mode, (16, 16), left)
    image.paste(right, (8, 0, 16, 16))
    return image


def palette(**options) -> bytes:
    return encoded(
        two_colours("RGB", (200, 0, 0), (0, 0, 200)).convert("P", palette=Image.Palette.ADAPTIVE),
        **options,
    )


@pytest.mark.parametrize(
    ("content", "left", "right"),
    [
        (
            encoded(two_colours("CMYK", (0, 255, 255, 55), (255, 255, 0, 55)), "TIFF"),
            (200, 0, 0),
            (0, 0, 200),
        ),
        (palette(), (200, 0, 0), (0, 0, 200)),
        (palette(transparency=1), (200, 0, 0), (0, 0, 200)),
        (encoded(two_colours("L", 50, 200)), (50,) * 3, (200,) * 3),
        (encoded(two_colours("LA", (50, 255), (200, 9))), (50,) * 3, (200,) * 3),
        (encoded(two_colours("RGBA", (200, 0, 0, 255), (0, 0, 200, 9))), (200, 0, 0), (0, 0, 200)),
        (encoded(two_colours("1", 0, 1)), (0,) * 3, (255,) * 3),
        (
            encoded(
                Image.fromarray(
                    np.repeat([[50 * 257, 200 * 257]], 8, 1).repeat(16, 0).astype(np.uint16)
                )
            ),
        )
        + ((50,) * 3, (200,) * 3),
        (rotated(), (200, 0, 0), (0, 0, 200)),
    ],
    ids=[
        "CMYK",
        "palette",
        "palette, transparent",
        "grey",
        "LA",
        "RGBA",
        "1 bit",
        "16 bit",
        "EXIF-rotated",
    ],
)
def test_pixels_of_odd_modes(content, left, right, tmp_path):
    """Transparency is dropped and EXIF not applied, as by torchvision's ImageFolder."""
    put(tmp_path / "cat" / "x.png", content)
    pixels = ImageFolder("f", 16, 3, root=str(tmp_path)).pixels(0, pixel_range=(0, 65535)).float()
    for place, colour in ((4, left), (12, right)):
        assert np.abs(pixels[:, 8, place].numpy() - colour).max() <= 2


def in_split(root: Path, *places: str) -> None:
    shutil.rmtree(root / "cat")
    shutil.rmtree(root / "dog")
    for i, place in enumerate(places):
        put(root / place / "x.png", encoded(picture(CLASSES.index(Path(place).name), i)))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda r: (r / "emu").mkdir(), "no images in 1 of 3 classes: 'emu'"),
        (lambda r: put(r / "emu/x.txt", b""), "no images in 1 of 3 classes: 'emu'"),
        (lambda r: put(r / "emu/x.png", b""), "no usable training images in 1 of 3 classes: 'emu'"),
        (lambda r: (r / "emu").symlink_to(r / "none"), "emu is a link to nothing"),
        (lambda r: (r / "emu").symlink_to("emu"), "emu is a link to nothing"),
        (lambda r: in_split(r, "test/cat", "test/dog", "val/cat"), "holds test, val and no train"),
        (
            lambda r: in_split(r, "train/cat", "val/cat", "val/dog"),
            "no usable training images in 1 of 2 classes",
        ),
        (
            lambda r: in_split(r, "train/cat", "test/dog"),
            "training images in 1 of 2 classes: 'dog'",
        ),
        (
            lambda r: [put(path, b"") for path in r.rglob("*.png")],
            "no usable training images in 2 of 2 classes",
        ),
    ],
)
def test_folders_whose_labels_would_be_guesses_are_refused(change, cause, tmp_path):
    root = good_folder(tmp_path / "f")
    change(root)
    with pytest.raises(DataError, match=cause) as caught:
        index_of(ImageFolder("f", 8, 3, root=str(root), on_bad_image="skip"), tmp_path / "out")
    two_lines(caught)


def test_classes_are_the_same_however_their_names_are_written(tmp_path):
    """Accents in two encodings are one class, ``Train`` is a split,
    ``Cat`` beside ``cat`` are two classes.
    """
    for label, (train, val) in enumerate([("caf\u00e9", "cafe\u0301"), ("z\u00fc", "z\u00fc")]):
        for part, name in (("Train", train), ("VAL", val)):
            for i in range(3):
                put(
                    tmp_path / part / name / f"{i}.png",
                    encoded(picture(label, i + 3 * (part == "VAL"))),
                )
    spec = ImageFolder("f", 8, 3, root=str(tmp_path))
    facts = index_of(spec, tmp_path / "out")
    assert facts["class_names"] == ["caf\u00e9", "z\u00fc"] and facts["counts"]["test"] == [3, 3]
    assert check_labels(spec, tmp_path / "out") == 12
    raw_name(tmp_path / "g", b"caf\xe9/x.png")
    put(tmp_path / "g" / "Cat" / "x.png", CAT), put(tmp_path / "g" / "cat" / "x.png", CAT)
    put(tmp_path / "g" / ("y" * 255) / "x.png", CAT)
    facts = index_of(ImageFolder("f", 8, 3, root=str(tmp_path / "g")), tmp_path / "other")
    assert (
        facts["class_names"] == ["Cat", "caf\\xe9", "cat", "y" * 255]
        and facts["counts"]["train"] == [1] * 4
    )


def test_a_picture_in_two_classes_is_said_and_one_twice_in_its_class_is_not(tmp_path):
    root = good_folder(tmp_path / "f")
    put(root / "cat/copy.png", (root / "dog/3.png").read_bytes())
    put(root / "dog/again.png", (root / "dog/4.png").read_bytes())
    # No pictures, though both are the same.
    put(root / "cat/bad.png", b""), put(root / "dog/bad.png", b"")
    facts = index_of(ImageFolder("f", 8, 3, root=str(root), on_bad_image="skip"), tmp_path / "out")
    assert facts["in_several_classes"] == [f"{root}/cat/copy.png = {root}/dog/3.png"]
    assert facts["num_in_several_classes"] == 1 and facts["num_skipped"] == 2


def test_error_names_five_and_counts_all_and_skip_reads_nothing_again(tmp_path):
    root, out = good_folder(tmp_path / "f"), tmp_path / "out"
    for i in range(7):
        put(root / "dog" / f"x{i}.png", b"")
    with pytest.raises(DataError, match="7 unreadable images: .*x4.png[^;]*; …\n") as caught:
        index_of(ImageFolder("f", 8, 3, root=str(root)), out)
    assert "x5.png" not in two_lines(caught)
    put(root / "dog" / "x6.png", encoded(picture(1, 60)))  # repaired: it alone is looked at again
    whole = (root / "dog" / "0.png").read_bytes()
    put(root / "dog" / "0.png", b"")
    facts = index_of(ImageFolder("f", 8, 3, root=str(root), on_bad_image="skip"), out)
    assert facts["num_skipped"] == 6 and "x5.png" in facts["skipped"][-1]
    put(root / "dog" / "0.png", whole)
    fresh = index_of(
        ImageFolder("f", 8, 3, root=str(root), on_bad_image="skip"),
        tmp_path / "fresh",
        num_workers=2,
    )
    assert (
        facts == fresh and (out / INDEX).read_bytes() == (tmp_path / "fresh" / INDEX).read_bytes()
    )


def test_an_image_that_is_damaged_after_it_was_indexed_is_named_from_other_processes_too(tmp_path):
    root = good_folder(tmp_path / "f")
    spec = ImageFolder("f", 8, 3, root=str(root), on_bad_image="skip")
    index_of(spec, tmp_path / "out")
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    images = IndexedImages(spec, tmp_path / "out", "train")
    with pytest.raises(
        DataError, match=r"f/\w+/\d.png: no image of a known kind\n  -> restore it"
    ) as caught:
        images.tensors()
    try:
        images[0]
    except DataError:
        # As a worker process sends it.
        sent = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(DataError) as received:
        sent.reraise()
    assert two_lines(received) == two_lines(caught)


@pytest.mark.parametrize("what", ["cat/3.png", "cat", "."])
def test_what_may_not_be_read_stops_the_run_even_with_skip(what, tmp_path):
    """It says nothing about the images, and the result must not depend on who runs it."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        root = good_folder(Path(place) / "f")
        (root / what).chmod(0)
        spec = ImageFolder("f", 8, 3, root=str(root), on_bad_image="skip")
        with without_rights(), pytest.raises(DataError, match=r"Permission denied") as caught:
            spec.fingerprint()
        assert what in two_lines(caught) or what == "."
        (root / what).chmod(0o755)
        _ = spec.opened
        (root / "dog" / "2.png").chmod(0)
        with (
            without_rights(),
            pytest.raises(DataError, match=r"2.png cannot be read .*Permission denied"),
        ):
            spec.pixels(NUM + 2)


def test_ten_thousand_classes_are_indexed_in_seconds(tmp_path):
    for label in range(10_000):
        folder = tmp_path / "f" / f"{label:05d}"
        folder.mkdir(parents=True)
        for i in range(2):
            (folder / f"{i}.ppm").write_bytes(b"P6 2 2 255\n" + struct.pack(">III", label, i, 7))
    start = time.perf_counter()
    facts = index_of(ImageFolder("f", 2, 3, root=str(tmp_path / "f")), tmp_path / "out")
    # 5 s, where nothing else runs; what is quadratic takes much longer.
    assert time.perf_counter() - start < 60
    assert facts["counts"]["train"] == [2] * 10_000 and facts["class_names"][9_999] == "09999"


# --- Parquet ----------------------------------------------------------------------------------

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGES = [{"bytes": encoded(picture(i % 2, i)), "path": f"{i}.png"} for i in range(2 * NUM)]
LABELS = [0, 1] * NUM


def shard(images=IMAGES, labels=LABELS, names=None, kind=STRUCT) -> pa.Table:
    table = pa.table({"image": pa.array(images, kind), "label": pa.array(labels)})
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    return table.replace_schema_metadata({"huggingface": json.dumps(features)} if names else None)


def write(root: Path, **tables: pa.Table) -> None:
    root.mkdir()
    for name, table in tables.items():
        pq.write_table(table, root / f"{name}.parquet")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, "no bytes"),
        ({"bytes": None, "path": None}, "no bytes"),
        ({"bytes": b"", "path": "x.png"}, "no bytes"),
        # a good image, of the other class, outside the folder
        ({"bytes": None, "path": "{outside}"}, "no bytes"),
        ({"bytes": b"hello", "path": "x.png"}, "no image of a known kind"),
        ({"bytes": LARGE[:400], "path": "x.png"}, "truncated"),
        ({"bytes": bomb(), "path": "x.png"}, "DecompressionBombError"),
    ],
)
def test_rows_without_an_image_stop_the_run_or_are_left_out(row, reason, tmp_path):
    outside = put(tmp_path / "secret.png", encoded(picture(1, 99)))
    if row and row["path"] == "{outside}":
        row = row | {"path": str(outside)}
    write(tmp_path / "p", train=shard([row, *IMAGES], [0, *LABELS], ["cat", "dog"]))
    with pytest.raises(
        DataError, match=f"1 unreadable image: .* row 0.*{reason}.*\n.*on_bad_image=skip"
    ) as caught:
        index_of(ParquetImages("p", 8, 3, root=str(tmp_path / "p")), tmp_path / "out")
    two_lines(caught)
    spec = ParquetImages("p", 8, 3, root=str(tmp_path / "p"), on_bad_image="skip")
    facts = index_of(spec, tmp_path / "out")
    # No address, which differs by process.
    assert facts["num_skipped"] == 1 and "0x" not in facts["skipped"][0]
    assert check_labels(spec, tmp_path / "out") == 2 * NUM


BARE = shard([image["bytes"] for image in IMAGES], kind=pa.binary())


@pytest.mark.parametrize(
    ("tables", "cause"),
    [
        ({"train": shard(labels=[*LABELS[1:], None])}, "1 rows without a label"),
        ({"train": shard(labels=[*LABELS[1:], 2], names=["cat", "dog"])}, "row 11 .*has label 2"),
        ({"train": shard(labels=[*LABELS[1:], -1], names=["cat", "dog"])}, "row 11 .*has label -1"),
        ({"train": shard(labels=[0.0, 1.7] * NUM, names=["cat", "dog"])}, "labels are double"),
        ({"train": shard(labels=["0", "1"] * NUM, names=["cat", "dog"])}, "labels are string"),
        (
            {"train": pa.table({"image": pa.array([{"path": "x"}] * 2), "label": [0, 1]})},
            "no encoded images",
        ),
        ({"train": shard().rename_columns(["picture", "label"])}, "no column 'image'"),
        (
            {"train": shard(), "train-1": shard().rename_columns(["image", "target"])},
            "no column 'label'",
        ),
        ({"train": shard(), "train-1": BARE}, "incompatible types"),
        ({"train": shard(), "train-1": shard(labels=["cat", "dog"] * NUM)}, "incompatible types"),
        (
            {"train": shard(names=["cat", "dog"]), "test": shard(names=["dog", "cat"])},
            "train.parquet and test.parquet name the classes differently",
        ),
        ({"train": shard([], pa.array([], pa.int64()))}, "no rows"),
        (
            {"train": shard(labels=[0] * 2 * NUM), "test": shard()},
            "no usable training images in 1 of 2 classes: '1'",
        ),
    ],
)
def test_tables_whose_labels_would_be_guesses_are_refused(tables, cause, tmp_path):
    write(tmp_path / "p", **tables)
    with pytest.raises(DataError, match=cause) as caught:
        index_of(
            ParquetImages("p", 8, 3, root=str(tmp_path / "p"), on_bad_image="skip"),
            tmp_path / "out",
        )
    two_lines(caught)


def test_shards_with_and_without_class_names_go_together_and_others_are_counted(tmp_path):
    write(
        tmp_path / "p",
        **{"train-0": shard(), "train-1": shard(names=["cat", "dog"]), "part-2": shard()},
    )
    spec = ParquetImages("p", 8, 3, root=str(tmp_path / "p"))
    facts = index_of(spec, tmp_path / "out")
    assert (
        facts["class_names"] == ["cat", "dog"] and check_labels(spec, tmp_path / "out") == 4 * NUM
    )
    assert facts["ignored"] == {"Parquet file of no split": 1}


@pytest.mark.parametrize("add", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("none")])
def test_a_shard_that_is_no_file_is_refused_before_it_can_block(add, tmp_path):
    write(tmp_path / "p", **{"train-0": shard()})
    add(tmp_path / "p" / "train-1.parquet")
    with pytest.raises(DataError, match="train-1.parquet is no file") as caught:
        ParquetImages("p", 8, 3, root=str(tmp_path / "p")).fingerprint()
    two_lines(caught)


# --- a whole run ------------------------------------------------------------------------------


def test_a_run_stops_in_two_lines_and_with_skip_counts_what_is_left(tmp_path):
    root, outputs = good_folder(tmp_path / "photos", 12), tmp_path / "out"
    for kind in ("truncated JPEG", "pipe"):
        UNREADABLE[kind][0](root)
    (
        put(root / "cat/x.heic", b"x"),
        put(root / "cat/._0.png", b"x"),
        put(root / "__MACOSX/cat/._0.png", b"x"),
    )
    put(root / "cat/copy.png", (root / "dog/0.png").read_bytes())
    common = (
        *("protocol=smoke", "student.width=8", "measure.num_folds=2", "trainer.accelerator=cpu"),
        *(
            "dataset=image_folder",
            "dataset.image_size=8",
            f"dataset.root={root}",
            f"paths.outputs={outputs}",
        ),
        *("encoder=pixels", "generator=decode", "student.depth=1", "ipc=2", "protocol.num_seeds=1"),
        *("baselines=none", "+baselines.full={}", "ablation=none", "measure.curve=[]"),
    )
    stopped = ddoq(*common)
    assert stopped.returncode == 1 and "Traceback" not in stopped.stderr
    *_, cause, remedy = stopped.stderr.splitlines()
    assert (
        cause.startswith("ddoq: error: dataset: 2 unreadable images: ")
        and "on_bad_image=skip" in remedy
    )
    folder = run_here(*common, "dataset.on_bad_image=skip")
    page = (folder / "report.html").read_text()
    for said in (
        "2 unreadable images left out",
        "cat/x.jpg: OSError",
        "cat/x.png: neither",
        "1 × .heic",
    ):
        assert said in page
    assert "in more than one class: 1" in page and f"{root}/cat/copy.png = {root}/dog/0.png" in page
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert {(row["num_skipped"], row["num_classes"]) for row in rows} == {(2, 2)}
    assert rows[0]["num_train"] + rows[0]["num_validation"] + rows[0]["num_test"] == 25
    assert {row["num_images"] for row in rows if row["arm"] == "full"} == {rows[0]["num_train"]}
    (index,) = (outputs / "store" / "index").glob(f"*/{INDEX}")
    # Although its index is finished now.
    with pytest.raises(DataError, match="2 unreadable images"):
        run_here(*common)
    table = pq.read_table(index).to_pydict()
    assert all(
        Path(name).parent.name == CLASSES[label]
        for name, label in zip(table["name"], table["label"], strict=True)
    )
