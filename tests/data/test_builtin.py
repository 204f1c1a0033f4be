"""Published data sets, label spaces, and the index at the scale of a million images;
all files are real and small.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import torchvision
from PIL import Image

from ddoq.data import scan, tiny_imagenet
from ddoq.data.builtin import CIFAR100, MNIST, SVHN, Digits, FashionMNIST
from ddoq.data.catalogue import CATALOGUE
from ddoq.data.download import Archive
from ddoq.data.folder import ImageFolder, image_files
from ddoq.data.imagenet import ImageNet
from ddoq.data.images import to_uint8
from ddoq.data.indexed import IndexedImages
from ddoq.data.label_space import LabelSpace
from ddoq.data.parquet import ParquetImages
from ddoq.data.tiny_imagenet import TinyImageNet
from ddoq.errors import ConfigError, DataError
from ddoq.stages.index import run
from ddoq.stages.runtime import Runtime

NETTE, WOOF = (CATALOGUE[name].wnids for name in ("imagenette", "imagewoof"))


def shade(wnid: str) -> int:
    return int(wnid[1:]) % 251


def picture(path: Path, grey: int = 100, size=(12, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey, grey, grey)).save(path)


def imagenet_tree(root: Path, wnids: list[str], train: int = 3, val: int = 2) -> Path:
    """Class folders whose images have the grey value of their class."""
    for part, number in (("train", train), ("val", val)):
        for wnid in wnids:
            for i in range(number):
                picture(root / part / wnid / f"{wnid}_{i}.JPEG", shade(wnid))
    return root


def index_of(spec, folder: Path, num_workers: int = 0) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    return run(None, {}, folder, Runtime(dataset=spec, models=None, num_workers=num_workers))


def two_lines(caught) -> str:
    assert len(str(caught.value).splitlines()) == 2
    return str(caught.value)


@contextmanager
def served(folder: Path, monkeypatch):
    """Yield the address of a web server for a folder."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


# --- label spaces -----------------------------------------------------------------------------


def test_imagenette_and_imagewoof_in_the_published_order():
    nette, woof = LabelSpace.from_classes(NETTE), LabelSpace.from_classes(WOOF)
    assert nette.imagenet_indices() == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
    assert (nette.names[0], nette.synonyms[0], nette.wnids[0]) == (
        "tench",
        "tench, Tinca tinca",
        "n01440764",
    )
    assert woof.wnids[0] == "n02096294" and woof.names[0] == "Australian terrier"
    # Australian terrier, Border terrier, Samoyed.
    assert woof.imagenet_indices()[:3] == [193, 182, 258]


def test_catalogue_holds_classes_of_imagenet_once_each():
    for name, number in (
        ("imagenet1k", 1000),
        ("imagenet100", 100),
        ("imageidc", 10),
        ("imagenette", 10),
    ):
        wnids = CATALOGUE[name].wnids
        assert len(set(wnids)) == len(wnids) == number
        numbers = LabelSpace.from_classes(wnids).imagenet_indices()
        assert [CATALOGUE["imagenet1k"].wnids[number] for number in numbers] == list(wnids)
    assert sorted(CATALOGUE["imagenet1k"].wnids) == list(CATALOGUE["imagenet1k"].wnids)
    hundred = CATALOGUE["imagenet100"].wnids
    assert CATALOGUE["imageidc"].wnids == hundred[:10]
    assert (hundred[0], hundred[-1], hundred[49]) == ("n02869837", "n02090622", "n03379051")


def test_names_stay_unique_where_imagenet_has_two_cranes():
    space = LabelSpace.from_classes(CATALOGUE["imagenet1k"].wnids)
    assert len(set(space.names)) == 1000
    assert (space.names[134], space.names[517]) == ("n02012849", "n03126707")
    assert (space.names[638], space.names[639]) == ("maillot", "maillot, tank suit")
    assert LabelSpace.from_classes(["crane", "n02012849"]).names == ["crane", "n02012849"]
    assert LabelSpace.from_classes(["n02012849"]).names == ["crane"]


def test_classes_that_are_not_imagenets_have_no_index_and_are_named():
    # Person; no synset at all.
    space = LabelSpace.from_classes(["my cat", "n01440764", "n00007846", "n99999999"])
    assert space.imagenet == [None, 0, None, None] and space.wnids[0] is None
    assert space.names[0] == space.synonyms[0] == "my cat" and space.names[1] == "tench"
    assert space.names[2].startswith("person") and space.names[3] == "n99999999"
    with pytest.raises(
        ConfigError, match="generator: 3 of 4 classes have no ImageNet-1K index: 'my cat', 'person"
    ):
        space.imagenet_indices()
    with pytest.raises(
        ConfigError, match="generator: class 'digit 3' has no ImageNet-1K index\n.*generator=dit"
    ) as e:
        LabelSpace.from_classes(["n01440764", "digit 3"]).imagenet_indices()
    two_lines(e)


def test_label_space_survives_the_manifest():
    for classes in (["n01440764", "my cat"], ["a", "b"]):
        space = LabelSpace.from_classes(classes)
        assert LabelSpace.from_facts(json.loads(json.dumps(space.to_facts()))) == space
    assert LabelSpace.from_classes(["a", "b"]).to_facts()["wnids"] is None


# --- ImageNet and its subsets -----------------------------------------------------------------


@pytest.mark.parametrize("place", ["imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC"])
def test_original_subset_has_published_labels_and_tests_on_val(tmp_path, place):
    imagenet_tree(tmp_path / place, sorted({*NETTE, *WOOF}))
    spec = ImageNet(
        "imagewoof", 16, 3, search=(tmp_path / "nothing", tmp_path), classes="imagewoof"
    )
    source = spec.open()
    assert source.class_names == WOOF and sorted(WOOF) != WOOF
    assert source.split.tolist() == ["train"] * 30 + ["test"] * 20
    for i, label in enumerate(source.labels):
        assert abs(int(to_uint8(source.read(i), 16, 3)[0, 0, 0]) - shade(WOOF[label])) <= 2
    assert source.provenance == f"imagewoof, original ILSVRC2012 folders ({Path(place).name})"


def test_fingerprint_of_a_subset_ignores_place_and_other_classes(tmp_path):
    few = imagenet_tree(tmp_path / "few", WOOF)
    many = imagenet_tree(tmp_path / "many", [*WOOF, *NETTE])
    prints = [
        ImageNet("x", 16, 3, root=str(root), classes="imagewoof").fingerprint()
        for root in (few, many)
    ]
    assert prints[0] == prints[1]
    (many / "train" / WOOF[3] / f"{WOOF[3]}_0.JPEG").unlink()
    assert ImageNet("x", 16, 3, root=str(many), classes="imagewoof").fingerprint() != prints[0]


def test_all_of_imagenet_is_read_in_timms_order(tmp_path):
    wnids = CATALOGUE["imagenet1k"].wnids
    source = ImageNet(
        "imagenet1k", 8, 3, root=str(imagenet_tree(tmp_path, wnids, train=1, val=1))
    ).open()
    assert source.class_names == wnids and source.labels.tolist() == [*range(1000), *range(1000)]
    assert source.describe(999).endswith("train/n15075141/n15075141_0.JPEG")
    assert source.unexpected_counts == (
        "1,000 training images where ImageNet-1K (original) has 1,281,167; "
        "1,000 test images where ImageNet-1K (original) has 50,000"
    )


def test_fastai_split_is_found_by_its_folders_and_named(tmp_path):
    imagenet_tree(tmp_path / "imagenette2-160", NETTE)
    imagenet_tree(tmp_path / "imagenet", NETTE, train=4)
    spec = ImageNet(
        "imagenette_fastai", 16, 3, search=(tmp_path,), classes="imagenette", source="fastai"
    )
    source = spec.open()
    assert source.provenance == "imagenette, fastai v2 split (imagenette2-160)"
    assert "30 training images where ImageNette (fastai) has 9,469" in source.unexpected_counts
    imagenet_tree(tmp_path / "imagenette2", NETTE)
    assert spec.open().provenance.endswith("(imagenette2)")  # full size first


def test_parquet_of_another_label_order_is_put_in_the_published_one(tmp_path):
    shuffled = sorted(WOOF)
    features = {"info": {"features": {"label": {"names": shuffled, "_type": "ClassLabel"}}}}
    for name in ("train", "validation"):
        images = []
        for wnid in shuffled:
            picture(tmp_path / "x.png", shade(wnid))
            images.append({"bytes": (tmp_path / "x.png").read_bytes(), "path": f"{wnid}.png"})
        table = pa.table({"image": images, "label": list(range(10))})
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        (tmp_path / "imagewoof128").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "imagewoof128" / f"{name}.parquet")
    spec = ImageNet("w", 16, 3, search=(tmp_path,), classes="imagewoof", source="fastai")
    source = spec.open()
    assert source.class_names == WOOF and sorted(source.labels[:10]) == list(range(10))
    for i, label in enumerate(source.labels):
        assert int(to_uint8(source.read(i), 16, 3)[0, 0, 0]) == shade(WOOF[label])
    other = ImageNet(
        "n", 16, 3, root=str(tmp_path / "imagewoof128"), classes="imagenette", source="fastai"
    )
    with pytest.raises(DataError, match="the label column has to name exactly these: n01440764"):
        other.open()


def test_imagenette128_is_the_fastai_split(shared):
    spec = ImageNet(
        "imagenette_fastai", 64, 3, search=(shared,), classes="imagenette", source="fastai"
    )
    source = spec.open()
    assert source.class_names == NETTE and source.unexpected_counts is None
    assert source.provenance == "imagenette, fastai v2 split (imagenette128)"
    assert (source.split == "train").sum() == 9469 and (source.split == "test").sum() == 3925


def test_missing_classes_are_listed(tmp_path):
    root = imagenet_tree(tmp_path, WOOF)
    for wnid in WOOF[2:4]:
        for file in (root / "val" / wnid).iterdir():
            file.unlink()
        (root / "val" / wnid).rmdir()
    with pytest.raises(
        DataError, match=f"val lacks 2 of 10 class folders: {WOOF[2]} {WOOF[3]}\n"
    ) as caught:
        ImageNet("w", 16, 3, root=str(root), classes="imagewoof").fingerprint()
    two_lines(caught)


def test_val_without_class_folders_says_how_to_sort_it(tmp_path):
    root = imagenet_tree(tmp_path / "imagenet", WOOF, val=0)
    picture(root / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(DataError, match="no class folders\n.*valprep.sh") as caught:
        ImageNet("w", 16, 3, search=(tmp_path,), classes="imagewoof").open()
    two_lines(caught)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            partial(ImageNet, classes="imagewoof"),
            ["image-net.org", "150 GB", "non-commercial", "/data/imagenet"],
        ),
        (
            partial(ImageNet, classes="imagewoof", source="fastai"),
            ["imagewoof2.tgz", "1.3 GB", "/data", "imagewoof128"],
        ),
        (TinyImageNet, ["tiny-imagenet-200.zip", "240 MB", "/data"]),
        (
            partial(SVHN, download=False),
            ["train_32x32.mat, test_32x32.mat into", "/data/svhn", "ufldl.stanford.edu"],
        ),
        (
            partial(CIFAR100, download=False),
            ["meta, train, test into", "/data/cifar-100-python", "~kriz"],
        ),
        (partial(MNIST, download=False), ["t10k-labels-idx1-ubyte.gz into", "/data/mnist"]),
    ],
)
def test_missing_data_says_what_from_where_into_which_folder(tmp_path, spec, expected):
    for function in ("fingerprint", "open"):
        with pytest.raises(DataError, match="mine was not found in") as caught:
            getattr(spec("mine", 16, 3, search=(tmp_path / "data", tmp_path)), function)()
        assert all(part in two_lines(caught) for part in expected)


def test_impossible_subsets_are_refused_with_a_suggestion():
    with pytest.raises(
        ConfigError, match="dataset.classes: 'imagenete'.*\n.*did you mean 'imagenette'"
    ):
        ImageNet("x", 16, 3, classes="imagenete")
    with pytest.raises(
        ConfigError, match="dataset.source: ImageNet-100 has no source 'fastai'\n.*original"
    ):
        ImageNet("x", 16, 3, classes="imagenet100", source="fastai")


# --- Tiny-ImageNet and the small ones ---------------------------------------------------------


def tiny_tree(root: Path) -> Path:
    for wnid in ("n02124075", "n01443537"):
        for i in range(3):
            picture(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", shade(wnid))
    lines = []
    for i, wnid in enumerate(("n02124075", "n01443537", "n02124075")):
        picture(root / "val" / "images" / f"val_{i}.JPEG", shade(wnid))
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))
    return root


def test_tiny_imagenet_takes_validation_labels_from_the_annotations(tmp_path):
    root = tiny_tree(tmp_path / "tiny-imagenet-200")
    source = TinyImageNet("t", 8, 3, search=(tmp_path,)).open()
    assert source.class_names == ["n01443537", "n02124075"]
    assert source.labels.tolist() == [0] * 3 + [1] * 3 + [1, 0, 1]
    assert source.split.tolist() == ["train"] * 6 + ["test"] * 3
    for i, label in enumerate(source.labels):
        assert (
            abs(int(to_uint8(source.read(i), 8, 3)[0, 0, 0]) - shade(source.class_names[label]))
            <= 2
        )
    picture(root / "val" / "images" / "val_7.JPEG")
    with pytest.raises(DataError, match=r"1 of its 4 images, e.g. val_7.JPEG") as caught:
        TinyImageNet("t", 8, 3, search=(tmp_path,)).fingerprint()
    two_lines(caught)


def test_svhn_calls_the_digit_zero_zero(tmp_path, monkeypatch):
    (tmp_path / "svhn").mkdir()
    for part, number in (("train", 20), ("test", 10)):
        labels = np.arange(number) % 10 + 1  # 1..10 as in the published files
        pixels = np.zeros((32, 32, 3, number), np.uint8)
        pixels[5, 9, 1] = labels
        scipy.io.savemat(
            tmp_path / "svhn" / f"{part}_32x32.mat", {"X": pixels, "y": labels[:, None]}
        )
    files = {part: tmp_path / "svhn" / f"{part}_32x32.mat" for part in ("train", "test")}
    sums = {
        part: ("", file.name, hashlib.md5(file.read_bytes()).hexdigest())
        for part, file in files.items()
    }
    with monkeypatch.context() as patch:
        patch.setattr("torchvision.datasets.SVHN.split_list", sums)
        source = SVHN("svhn", 32, 3, search=(tmp_path,)).open()
    assert source.class_names[0] == "0" and source.split.tolist() == ["train"] * 20 + ["test"] * 10
    for i in (0, 9, 29):
        image = np.asarray(source.read(i))
        assert image[5, 9, 1] % 10 == source.labels[i] and image[9, 5, 1] == 0
    # SciPy's reader would crash the process over some damaged files:
    # nothing but the published bytes reaches it
    with pytest.raises(DataError, match="train_32x32.mat cannot be read .its checksum"):
        SVHN("svhn", 32, 3, search=(tmp_path,)).open()


def test_cifar100_from_parquet_and_torchvisions_damaged_folder(tmp_path):
    folder = tmp_path / "cifar100"
    folder.mkdir()
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (7, 8, 9)).save(buffer, "PNG")
    names = [f"class {i}" for i in range(100)]
    features = json.dumps(
        {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    )
    for part in ("train", "test"):
        table = pa.table(
            {"image": [{"bytes": buffer.getvalue(), "path": None}] * 100, "label": list(range(100))}
        )
        pq.write_table(
            table.replace_schema_metadata({"huggingface": features}), folder / f"{part}.parquet"
        )
    source = CIFAR100("cifar100", 32, 3, search=(tmp_path,)).open()
    assert source.class_names == names and (source.split == "test").sum() == 100
    for file in ("meta", "train", "test"):
        (tmp_path / "cifar-100-python").mkdir(exist_ok=True)
        (tmp_path / "cifar-100-python" / file).write_bytes(
            b"no pickle, and not what the authors published"
        )
    with pytest.raises(DataError, match="cifar-100-python cannot be read"):
        CIFAR100("cifar100", 32, 3, search=(tmp_path,)).open()


# --- downloads --------------------------------------------------------------------------------


def idx_files(folder: Path) -> list[tuple[str, str]]:
    """Write complete IDX files; return their names and md5."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for part, number in (("train", 20), ("t10k", 10)):
        shape = np.array([2051, number, 28, 28], ">i4").tobytes()
        images, labels = bytes(number * 784), bytes(i % 10 for i in range(number))
        for name, content in (
            (f"{part}-images-idx3-ubyte.gz", shape + images),
            (f"{part}-labels-idx1-ubyte.gz", np.array([2049, number], ">i4").tobytes() + labels),
        ):
            (folder / name).write_bytes(gzip.compress(content))
            found.append((name, hashlib.md5((folder / name).read_bytes()).hexdigest()))
    return found


def test_fetch_lets_torchvision_download_once(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", idx_files(tmp_path / "web"))
    spec = MNIST("mnist", 28, 1, download=False)
    with served(tmp_path / "web", monkeypatch) as address:
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"{address}/"])
        spec.fetch(tmp_path / "data")
    spec.fetch(tmp_path / "data")  # the server is gone: nothing may be asked of it
    source = MNIST("mnist", 28, 1, search=(tmp_path / "data",), download=False).open()
    assert source.labels.tolist() == [*range(10)] * 3 and source.class_names == [
        str(i) for i in range(10)
    ]
    with pytest.raises(DataError, match="and the download failed") as caught:
        spec.fetch(tmp_path / "elsewhere")
    two_lines(caught)


def tiny_archive(web: Path) -> Path:
    tiny_tree(web / "tiny-imagenet-200")
    with zipfile.ZipFile(web / "tiny.zip", "w") as archive:
        for file in sorted((web / "tiny-imagenet-200").rglob("*.*")):
            archive.write(file, file.relative_to(web))
    return web


def test_fetch_extracts_an_archive_once_and_leaves_nothing_else(tmp_path, monkeypatch):
    web, data = tiny_archive(tmp_path / "web"), tmp_path / "data"
    with served(web, monkeypatch) as address:
        archive = Archive(f"{address}/tiny.zip", "tiny-imagenet-200", "240 MB")
        monkeypatch.setattr(tiny_imagenet, "_ARCHIVE", archive)
        TinyImageNet("t", 8, 3).fetch(data)
    TinyImageNet("t", 8, 3).fetch(data)
    assert [path.name for path in data.iterdir()] == ["tiny-imagenet-200"]
    assert len(TinyImageNet("t", 8, 3, search=(data,)).open().labels) == 9
    with pytest.raises(DataError, match="and the download failed.*\n.*240 MB") as caught:
        TinyImageNet("t", 8, 3).fetch(tmp_path / "elsewhere")
    two_lines(caught)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("member", ["../evil.txt", "/tmp/ddoq-evil.txt"])
def test_members_of_an_archive_cannot_leave_the_folder(tmp_path, monkeypatch, member):
    web, data = tmp_path / "web", tmp_path / "data"
    web.mkdir()
    with tarfile.open(web / "x.tgz", "w:gz") as archive:
        for name in ("x/fine.txt", member):
            archive.addfile(tarfile.TarInfo(name))
    with zipfile.ZipFile(web / "x.zip", "w") as archive:
        archive.writestr("x/fine.txt", "")
        archive.writestr(member, "")
    with served(web, monkeypatch) as address:
        if member.startswith(".."):
            with pytest.raises(tarfile.OutsideDestinationError):
                Archive(f"{address}/x.tgz", "x", "").extract_below(data)
            assert not list(data.iterdir())
        Archive(f"{address}/x.zip", "x", "").extract_below(data)
    assert {path.name for path in data.rglob("*")} == {"x", "fine.txt"}
    assert not list(tmp_path.rglob("*evil*")) and not Path("/tmp/ddoq-evil.txt").exists()


def test_damaged_archive_is_refused_by_its_checksum(tmp_path, monkeypatch):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "x.zip").write_bytes(b"something else")
    with (
        served(tmp_path / "web", monkeypatch) as address,
        pytest.raises(RuntimeError, match="corrupted"),
    ):
        Archive(f"{address}/x.zip", "x", "", md5="0" * 32).extract_below(tmp_path / "data")


def test_fetch_of_the_original_imagenet_says_where_to_get_it_and_own_data_need_nothing(tmp_path):
    spec = ImageNet("imagenette", 16, 3, classes="imagenette")
    with pytest.raises(
        DataError, match=f"without an account\n.*image-net.org.*into {tmp_path}/imagenet"
    ) as caught:
        spec.fetch(tmp_path)
    two_lines(caught)
    imagenet_tree(tmp_path / "imagenet", NETTE, train=1, val=1)
    spec.fetch(tmp_path)
    before = list(tmp_path.iterdir())
    for own in (ImageFolder("f", 8, 3), ParquetImages("p", 8, 3), Digits("d", 8, 1)):
        own.fetch(tmp_path)
    assert list(tmp_path.iterdir()) == before


# --- listing and fingerprints -----------------------------------------------------------------


def test_listing_is_in_path_order_and_follows_links(tmp_path):
    for name in (
        "b/1.png",
        "b-c/2.png",
        "b c/3.PNG",
        "b/sub/4.Jpeg",
        "a.webp",
        "notes.txt",
        "b/.hidden.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.webp")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing")
    paths = sorted(
        path for path in tmp_path.rglob("[!.]*") if path.is_file() and path.suffix != ".txt"
    )
    assert list(image_files(tmp_path)) == [path.relative_to(tmp_path).as_posix() for path in paths]


def test_fingerprint_of_few_files_is_that_of_earlier_versions(tmp_path):
    """Stores name their artefacts by it."""
    for name in ("b-c/x.png", "b/y.png"):
        picture(tmp_path / name)
    lines = []
    for name in ("b/y.png", "b-c/x.png"):
        content = (tmp_path / name).read_bytes()
        lines.append(f"{name}\0{len(content)}\0{hashlib.sha256(content).hexdigest()}\n")
    spec = ImageFolder("f", 8, 3, root=str(tmp_path))
    assert spec.fingerprint() == hashlib.sha256("".join(lines).encode()).hexdigest()


# --- the index --------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """53 images of two classes; chunks of 16 in batches of 8."""
    monkeypatch.setattr(scan, "CHUNK_SIZE", 16)
    monkeypatch.setattr(scan, "_BATCH_SIZE", 8)
    random = np.random.default_rng(0)
    for i in range(53):
        path = tmp_path / "photos" / ("n01440764" if i % 3 else "n02012849") / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (9 + i % 4, 14, 3), np.uint8)).save(path)
    return tmp_path / "photos"


def spec_of(photos: Path, **options) -> ImageFolder:
    return ImageFolder("photos", 8, 3, root=str(photos), **options)


def test_index_is_the_same_for_any_number_of_workers(photos, tmp_path):
    (photos / "n01440764" / "040.png").write_bytes(b"no image")
    results = [
        index_of(spec_of(photos, on_bad_image="skip"), tmp_path / f"w{n}", n) for n in (0, 2)
    ]
    assert results[0] == results[1] == json.loads(json.dumps(results[0]))
    # No part is left.
    left = sorted(path.name for path in (tmp_path / "w0").iterdir())
    assert left == ["index.parquet", "pictures.parquet"]
    assert (tmp_path / "w0" / "index.parquet").read_bytes() == (
        tmp_path / "w2" / "index.parquet"
    ).read_bytes()
    facts = results[0]
    assert facts["num_skipped"] == 1 and facts["skipped"][0].endswith(
        "040.png: no image of a known kind"
    )
    assert facts["class_names"] == ["tench", "crane"] and facts["wnids"] == [
        "n01440764",
        "n02012849",
    ]
    assert facts["imagenet"] == [0, 134] and facts["unexpected_counts"] is None
    assert sum(map(sum, facts["counts"].values())) == 52


def test_index_measures_the_training_images_alone(photos, tmp_path):
    spec = spec_of(photos)
    facts = index_of(spec, tmp_path / "out")
    train, _ = IndexedImages(spec, tmp_path / "out", "train").tensors()
    pixels = train.double() / 255
    assert facts["mean"] == pytest.approx(pixels.mean((0, 2, 3)).tolist(), rel=1e-9)
    assert facts["std"] == pytest.approx(pixels.std((0, 2, 3), unbiased=False).tolist(), rel=1e-9)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_killed_index_resumes_at_its_chunk(photos, tmp_path, num_workers):
    whole = index_of(spec_of(photos), tmp_path / "whole")
    files = [Path(spec_of(photos).open().describe(i)) for i in (3, 36)]
    early, late = (file.read_bytes() for file in files)
    out, spec = tmp_path / "out", spec_of(photos)
    # Its files are listed: one that goes then is no bad image, but ends the run like a kill.
    assert spec.opened
    files[1].unlink()
    with pytest.raises(DataError, match=f"{files[1].name} cannot be read .*No such file") as caught:
        index_of(spec, out, num_workers)
    two_lines(caught)
    assert [path.name for path in sorted(out.iterdir())] == [
        "scan-00000.safetensors",
        "scan-00001.safetensors",
    ]
    files[1].write_bytes(late)
    files[0].write_bytes(early[:60])  # in a finished chunk: it must not be looked at again
    assert index_of(spec_of(photos), out, num_workers) == whole
    assert (out / "index.parquet").read_bytes() == (
        tmp_path / "whole" / "index.parquet"
    ).read_bytes()


def test_index_warns_where_a_published_set_is_incomplete(tmp_path, capsys):
    imagenet_tree(tmp_path, NETTE, train=3, val=50)
    facts = index_of(
        ImageNet("imagenette", 8, 3, root=str(tmp_path), classes="imagenette"), tmp_path / "out"
    )
    expected = "30 training images where ImageNette (original) has 12,894"
    # And nothing of the 500 test images, which are all there.
    assert facts["unexpected_counts"] == expected
    assert capsys.readouterr().out.splitlines()[0] == f"imagenette: {expected}"
    assert facts["class_names"][:2] == ["tench", "English springer"] and facts["imagenet"][:2] == [
        0,
        217,
    ]


def test_squash_keeps_the_whole_picture_and_crop_its_shape(tmp_path):
    """A wide picture: black, with white left and right quarters."""
    wide = Image.new("L", (64, 32))
    wide.paste(255, (0, 0, 16, 32))
    wide.paste(255, (48, 0, 64, 32))
    assert to_uint8(wide, 16, 1).max() < 128
    squashed = to_uint8(wide, 16, 1, "squash")[0] > 128
    assert squashed[:, :4].all() and squashed[:, 12:].all() and not squashed[:, 4:12].any()
    for name in ("a", "b"):
        for i in range(4):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            wide.save(tmp_path / "data" / name / f"{i}.png")
    for resize in ("crop", "squash"):
        spec = ImageFolder("f", 16, 1, root=str(tmp_path / "data"), resize=resize)
        facts = index_of(spec, tmp_path / resize)
        assert (facts["mean"][0] > 0.4) == (resize == "squash")
        images = IndexedImages(spec, tmp_path / resize, "train")
        assert (images[0][1][0, 0, 0] > 200) == (resize == "squash")


def test_images_can_be_read_at_another_size(photos, tmp_path):
    spec = spec_of(photos)
    index_of(spec, tmp_path / "out")
    usual, larger = (IndexedImages(spec, tmp_path / "out", "test", size) for size in (None, 12))
    assert usual.tensors()[0].shape[1:] == (3, 8, 8) and larger.tensors()[0].shape[1:] == (
        3,
        12,
        12,
    )
    assert (
        larger[0][1].shape == (3, 12, 12) and larger.tensors()[1].tolist() == usual.labels.tolist()
    )


def test_a_data_set_is_opened_once_and_travels_to_other_processes(photos):
    spec = spec_of(photos)
    assert spec.opened is spec.opened
    # As a spawned worker gets it; the opened files stay behind.
    copy = pickle.loads(pickle.dumps(spec))
    assert copy == spec and copy.opened.labels.tolist() == spec.opened.labels.tolist()


def test_real_fashion_mnist_keeps_its_fingerprint(shared):
    """It names the artefacts of every store."""
    assert FashionMNIST("f", 28, 1, search=(shared,)).fingerprint().startswith("f5b398c24890ab77")
