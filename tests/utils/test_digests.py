"""Contents decide what a file is, and files that have not changed are not read twice."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddoq.data.base import hash_names
from ddoq.data.tiny_imagenet import TinyImageNet
from ddoq.errors import DataError
from ddoq.experiment import Models
from ddoq.pipeline.command import main as store
from ddoq.pipeline.store import DIGESTS
from ddoq.utils import digests as module
from ddoq.utils.digests import Content, Digests, is_settled
from support.processes import without_rights
from support.runs import ROOT, run_here

NAMES = [f"{label}/{i}.bin" for label in "ab" for i in range(5)]
SECOND = 10**9


@pytest.fixture
def files(monkeypatch) -> Iterator[Path]:
    """Ten small files that are remembered as large data are,
    once they have lain for a few ticks of this disk.
    """
    monkeypatch.setattr(module, "_FEW_FILES", 0)
    monkeypatch.setattr(module, "_FEW_BYTES", 0)
    monkeypatch.setattr(module, "_TICK", SECOND // 50)
    with tempfile.TemporaryDirectory() as place:  # pytest's own is closed to others than its user
        os.chmod(place, 0o755)
        root = Path(place) / "files"
        for name in NAMES:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(name.encode())
        lie()
        yield root


def lie() -> None:
    """Let files lie until what changes now has another time."""
    time.sleep(0.05)


def contents(root: Path, names=NAMES) -> list[Content]:
    """Return what is in files, by reading them here."""
    found = [(root / name).read_bytes() for name in names]
    return [Content(len(content), hashlib.sha256(content).hexdigest()) for content in found]


def rows(folder: Path) -> dict[str, str]:
    """Return the digests of the one table in a folder by the names of files;
    its seal has to be right.
    """
    (table,) = folder.glob("*")
    seal, _, body = table.read_bytes().partition(b"\0")
    assert seal.decode() == hashlib.sha256(body).hexdigest()
    return {row.split(" ", 6)[6]: row[:64] for row in body.decode().split("\0")[1:]}


def forge(folder: Path, name: str) -> str:
    """Give a file another digest in the one table of a folder,
    as only who does not read the file would report it.
    """
    (table,) = folder.glob("*")
    body = table.read_bytes().partition(b"\0")[2].replace(rows(folder)[name].encode(), b"f" * 64)
    table.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\0" + body)
    return "f" * 64


def rewrite(path: Path, content: bytes) -> None:
    """Change a file's content in place, so that size, inode and mtime stay."""
    status = path.stat()
    assert len(content) == status.st_size
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (status.st_mtime_ns, status.st_ino)


# --- what is remembered -----------------------------------------------------------------------


def test_files_are_read_once_and_again_where_they_changed(files, tmp_path):
    known = Digests(tmp_path / "store")
    assert known.of(files, NAMES) == contents(files)
    assert rows(tmp_path / "store").keys() == set(NAMES)
    wrong = forge(tmp_path / "store", "a/3.bin")
    assert known.of(files, NAMES)[3].sha256 == wrong, "an unchanged file was read again"
    rewrite(files / "b/0.bin", b"x/0.bin")
    lie()
    told = known.of(files, NAMES)
    assert told[5:] == contents(files)[5:] and told[3].sha256 == wrong, (
        "only what changed is read again"
    )
    os.utime(files / "a/3.bin")  # touched: read again, and found as it was
    assert known.of(files, NAMES) == contents(files) == Digests().of(files, NAMES)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: rewrite(path, b"x/1.bin"),
        lambda path: (
            path.with_name("new").write_bytes(b"x/1.bin"),
            path.with_name("new").rename(path),
        ),
        lambda path: (path.unlink(), path.symlink_to(path.parents[1] / "b/1.bin")),
        lambda path: path.write_bytes(b"longer than it was"),
    ],
    ids=["in place", "replaced", "linked", "longer"],
)
def test_whatever_changes_content_changes_the_fingerprint(files, tmp_path, change: Callable):
    known = Digests(tmp_path / "store")
    before = hash_names(NAMES, files, known)
    change(files / "a/1.bin")
    after = hash_names(NAMES, files, known)
    assert after != before and after == hash_names(NAMES, files)


def test_a_file_that_has_just_changed_is_not_remembered(files, tmp_path, monkeypatch):
    """A second change within the same tick of the clock would leave the same times."""
    monkeypatch.setattr(module, "_TICK", 60 * SECOND)
    rewrite(files / "a/1.bin", b"x/1.bin")
    known = Digests(tmp_path / "store")
    assert known.of(files, NAMES) == contents(files)
    assert not rows(tmp_path / "store")


def test_only_times_that_show_every_change_are_trusted():
    written, now = 1_700_000_000 * SECOND, 1_700_000_100 * SECOND
    assert is_settled(written + 1, written + 1, now)  # written there
    # Unpacked there: its mtime is that in the archive.
    assert is_settled(written - 9 * SECOND, written, now)
    assert is_settled(now + 9 * SECOND, written, now)  # mtime is anything
    # An image of a file system, which can be made again.
    assert not is_settled(written, written, now)
    assert not is_settled(written, now - SECOND, now)
    assert not is_settled(written, now + SECOND, now)  # a clock that is ahead


def test_a_link_to_other_files_does_not_take_their_digests(files, tmp_path):
    known, link = Digests(tmp_path / "store"), tmp_path / "link"
    shutil.copytree(files, tmp_path / "other")
    (tmp_path / "other/a/1.bin").write_bytes(b"x/1.bin")
    for target in (files, tmp_path / "other", files):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        lie()
        assert known.of(link, NAMES) == contents(target)
    assert len(list((tmp_path / "store").iterdir())) == 2


def test_subsets_of_a_folder_keep_what_is_known_of_each_other(files, tmp_path):
    known = Digests(tmp_path / "store")
    known.of(files, NAMES[:5])
    known.of(files, NAMES[3:])
    assert rows(tmp_path / "store").keys() == set(NAMES)
    (files / "a/0.bin").write_bytes(b"once more")
    lie()
    known.of(files, NAMES)
    # No row twice.
    assert len((next((tmp_path / "store").iterdir())).read_bytes().split(b"\0")) == 2 + len(NAMES)


def test_names_of_any_bytes_are_remembered(files, tmp_path):
    known = Digests(tmp_path / "store")
    names = ["a b\nc", "ü", os.fsdecode(b"\xff\xfe"), "-"]
    for name in names:
        (files / name).write_bytes(os.fsencode(name))
    lie()
    assert known.of(files, names) == contents(files, names)
    (table,) = (tmp_path / "store").iterdir()
    stands = table.read_bytes()
    assert known.of(files, names) == contents(files, names) and table.read_bytes() == stands


def test_little_is_read_every_time(files, tmp_path, monkeypatch):
    monkeypatch.undo()
    assert Digests(tmp_path / "store").of(files, NAMES) == contents(files)
    assert not (tmp_path / "store").exists()


def test_files_that_cannot_be_read_are_named(files, tmp_path):
    (files / "a/1.bin").chmod(0)
    with (
        without_rights(),
        pytest.raises(DataError, match=r"a/1.bin cannot be read .*Permission denied"),
    ):
        Digests().of(files, NAMES)
    (files / "a/1.bin").unlink()
    with pytest.raises(DataError, match=r"a/1.bin cannot be read .*No such file"):
        Digests().of(files, NAMES)


# --- the table under hardship -----------------------------------------------------------------


def test_a_damaged_table_is_no_table(files, tmp_path):
    known = Digests(tmp_path / "store")
    known.of(files, NAMES)
    (table,) = (tmp_path / "store").iterdir()
    good = table.read_bytes()
    forge(tmp_path / "store", "a/3.bin")
    forged = table.read_bytes().partition(b"\0")[2]
    bad = [b"", b"\0", good[: len(good) // 2], b"f" * 64 + b"\0" + forged, b"x" * 999, bytes(999)]
    bad += [good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :] for i in range(0, len(good), 97)]
    for content in bad:
        table.write_bytes(content)
        assert known.of(files, NAMES) == contents(files)
        assert sorted(table.read_bytes().split(b"\0")[2:]) == sorted(good.split(b"\0")[2:])


@pytest.mark.parametrize("hardship", ["a file", "no rights", "full", "a folder"])
def test_where_nothing_can_be_written_nothing_is_remembered(files, hardship, capsys):
    folder, limits = files.parent / "store", resource.getrlimit(resource.RLIMIT_FSIZE)
    known = Digests(folder)
    if hardship == "a file":
        folder.touch()
    elif hardship == "a folder":
        known.of(files, NAMES)
        (table,) = folder.iterdir()
        table.unlink()
        table.mkdir()
    else:
        folder.mkdir()
    if hardship == "no rights":
        with without_rights():
            told = known.of(files, NAMES)
    else:
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (100 if hardship == "full" else limits[0], limits[1])
        )
        try:
            told = known.of(files, NAMES)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert told == contents(files)
    assert "cannot be written" in capsys.readouterr().out
    assert not list(files.parent.rglob(".tmp*"))


def test_processes_at_once_agree_and_leave_a_whole_table(files, tmp_path):
    code = (
        "import sys; from pathlib import Path; from ddoq.utils import digests as d\n"
        "d._FEW_FILES = d._FEW_BYTES = d._TICK = 0\n"
        "for _ in range(20): "
        "told = d.Digests(Path(sys.argv[1])).of(Path(sys.argv[2]), sys.argv[3:])\n"
        "print(*told)"
    )
    said = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "store"), str(files), *names],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for names in (NAMES, NAMES, NAMES[4:])
    ]
    for process, names in zip(said, (NAMES, NAMES, NAMES[4:]), strict=True):
        assert process.communicate()[0].split("\n")[0] == " ".join(map(str, contents(files, names)))
    assert rows(tmp_path / "store").keys() >= set(NAMES[4:])
    assert not list((tmp_path / "store").glob(".tmp*"))


def test_reading_is_saved_on_the_way(files, tmp_path, monkeypatch):
    """What a killed process has read is not lost; the last file stands for the kill."""
    monkeypatch.setattr(module, "_SAVE_SECONDS", 0)
    monkeypatch.setattr(module, "_PORTION_FILES", 2)
    (files / "b/4.bin").unlink()
    (files / "b/4.bin").mkdir()
    with pytest.raises(DataError, match=r"b/4.bin cannot be read"):
        Digests(tmp_path / "store").of(files, NAMES)
    assert set(NAMES[:4]) <= rows(tmp_path / "store").keys()


# --- whose contents ---------------------------------------------------------------------------


def write_labels(root: Path, labels: list[int]) -> None:
    """Write Parquet files of noise that differ in nothing but their labels."""
    root.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        images = []
        for _ in labels:
            file = pa.BufferOutputStream()
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(
                pa.PythonFile(file, "w"), "PNG"
            )
            images.append({"bytes": file.getvalue().to_pybytes(), "path": None})
        table = pa.table({"image": images, "label": pa.array(labels, pa.int64())})
        pq.write_table(table, root / f"{split}.parquet", compression="none", use_dictionary=False)


def test_corrected_labels_of_equal_size_are_indexed_again(files, tmp_path, capsys):
    few = (
        "protocol=smoke",
        "encoder=pixels",
        "generator=decode",
        "baselines=none",
        "ablation=none",
    )
    data = (
        "dataset=parquet",
        f"dataset.root={tmp_path}/data",
        "dataset.image_size=8",
        "run.until=index",
    )
    labels, sizes, outputs = [0, 1] * 6, [], tmp_path / "outputs"
    for written in (labels, labels, labels[::-1]):
        write_labels(tmp_path / "data", written)
        sizes.append((tmp_path / "data" / "train.parquet").stat().st_size)
        lie()
        run_here(*few, *data, "ipc=2", "measure.curve=[]", f"paths.outputs={outputs}")
    assert len(set(sizes)) == 1
    indices = [
        pq.read_table(file)["label"].to_pylist()
        for file in outputs.glob("store/index/*/index.parquet")
    ]
    # The same content, written twice, is one.
    assert sorted(indices) == sorted([2 * labels, 2 * labels[::-1]])
    assert rows(outputs / "store" / DIGESTS).keys() == {"train.parquet", "test.parquet"}
    for command in ("verify", "repair", "du", "ls"):
        assert store([command, "--outputs", str(outputs)]) == 0  # it is no stray
    assert DIGESTS in capsys.readouterr().out
    store(["gc", "--keep", "0", "--outputs", str(outputs)])
    assert rows(outputs / "store" / DIGESTS)


def test_labels_in_a_file_beside_the_images_are_content(tmp_path):
    root, wnids = tmp_path / "tiny-imagenet-200", ("n01443537", "n01629819")
    for name in (
        f"train/{wnids[0]}/images/1.JPEG",
        f"train/{wnids[1]}/images/2.JPEG",
        "val/images/3.JPEG",
        "val/images/4.JPEG",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    told = []
    for first, second in (wnids, wnids[::-1], wnids):
        (root / "val/val_annotations.txt").write_text(f"3.JPEG\t{first}\t0\n4.JPEG\t{second}\t0\n")
        told.append(TinyImageNet("t", 8, 3, search=(tmp_path,)).fingerprint())
    assert told[0] == told[2] != told[1]


def test_weights_are_known_by_content(files, tmp_path):
    known = Digests(tmp_path / "store")
    conf = {"_target_": "ddoq.labelers.TimmTeacher", "path": str(files / "a/1.bin")}
    file = files / "a/1.bin"
    assert (
        Models([], known).identify(conf, "teacher.path")
        == hashlib.sha256(file.read_bytes()).hexdigest()
    )
    rewrite(file, b"x/1.bin")
    assert (
        Models([], known).identify(conf, "teacher.path") == hashlib.sha256(b"x/1.bin").hexdigest()
    )
    folder = tmp_path / "vae"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "x.safetensors").write_bytes(b"one")
    conf = {"_target_": "ddoq.encoders.VAE", "path": str(folder)}
    lie()
    before = Models([], known).identify(conf, "encoder.path")
    assert Models([], known).identify(conf, "encoder.path") == before
    rewrite(folder / "x.safetensors", b"two")
    assert Models([], known).identify(conf, "encoder.path") != before


@pytest.mark.slow
def test_contents_decide_beyond_a_gigabyte_and_beyond_50_000_files(tmp_path):
    big, many = tmp_path / "big", tmp_path / "many"
    big.mkdir(), many.mkdir()
    with (big / "x").open("wb") as file:
        file.truncate(2**30 + 1)
    names = [f"{i}" for i in range(50_001)]
    for name in names:
        (many / name).write_bytes(b"1")
    before = hash_names(["x"], big), hash_names(names, many)
    with (big / "x").open("r+b") as file:
        file.seek(2**30)
        file.write(b"1")
    (many / "777").write_bytes(b"2")
    assert hash_names(["x"], big) != before[0] and hash_names(names, many) != before[1]
