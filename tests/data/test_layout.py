"""Folders as people have them: each is read right, or refused with a remedy that works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddoq.config.checks import check
from ddoq.data.base import hash_names
from ddoq.data.folder import ImageFolder
from ddoq.data.names import ordered, split_of
from ddoq.data.recognised import recognised
from ddoq.errors import DataError
from ddoq.job import prepare
from support.runs import composed, run_here

THREE = ("buildings", "forest", "sea")
TWO = ("cat", "dog")


def tree(root: Path, *folders: str, num: int = 2) -> Path:
    """Put ``num`` pictures into each folder;
    a folder ``a/{b,c}`` stands for ``a/b`` and ``a/c``.
    """
    for pattern in folders:
        before, names, after = re.fullmatch(r"([^{]*)(?:\{([^}]*)\})?(.*)", pattern).groups()
        for name in (names or "").split(","):
            folder = root / f"{before}{name}{after}"
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(num):
                pixels = np.random.default_rng([i, *str(folder).encode()]).integers(
                    0, 255, (8, 8, 3), np.uint8
                )
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def spec_of(root: Path, **options) -> ImageFolder:
    return ImageFolder("f", 8, 3, root=str(root), **options)


def read(root: Path, **options) -> tuple[list[str], dict[str, int], list[str]]:
    """Return class names, number of images by split, and what the plan says."""
    spec = spec_of(root, **options)
    spec.fingerprint()  # as a run does first
    source = spec.examine()
    counts = dict(zip(*np.unique(source.split, return_counts=True), strict=True))
    for i, label in enumerate(source.labels):  # the name of the class is a part of the path
        assert source.class_names[label] in Path(source.describe(i)).parts
    return (
        source.class_names,
        {str(split): int(count) for split, count in counts.items()},
        recognised(source, spec),
    )


ALL = "{buildings,forest,sea}"


@pytest.mark.parametrize(
    ("folders", "expected", "said"),
    [
        ([f"training/{ALL}", f"testing/{ALL}"], {"train": 6, "test": 6}, "test 6 (testing/)"),
        (
            [f"training_set/{ALL}", f"test_set/{ALL}"],
            {"train": 6, "test": 6},
            "train 6 (training_set/)",
        ),
        ([f"Train /{ALL}", f"TEST/{ALL}"], {"train": 6, "test": 6}, "train 6 (Train /)"),
        ([f"train/{ALL}", f"dev/{ALL}"], {"train": 6, "test": 6}, "test 6 (dev/)"),
        (
            [f"train/{ALL}", f"dev/{ALL}", f"eval/{ALL}"],
            {"train": 6, "validation": 6, "test": 6},
            "test 6 (eval/)",
        ),
        (
            [f"train_images/{ALL}", f"validate/{ALL}", f"holdout/{ALL}"],
            {"train": 6, "validation": 6, "test": 6},
            "hold",
        ),
        ([f"tr/{ALL}", f"te/{ALL}"], {"train": 6, "test": 6}, "test 6 (te/)"),
        ([f"xray_train/{ALL}", f"xray_test/{ALL}"], {"train": 6, "test": 6}, "xray_test/"),
        (
            [f"seg_train/seg_train/{ALL}", f"seg_test/seg_test/{ALL}", "seg_pred/seg_pred"],
            {"train": 6, "test": 6},
            "left aside: seg_pred/, which holds no class folders of train",
        ),
        (
            [f"archive/train/{ALL}", f"archive/test/{ALL}"],
            {"train": 6, "test": 6},
            "found in archive/",
        ),
        ([f"a/b/{ALL}"], {"": 6}, "found in a/b/"),
        (
            [f"train/{ALL}", f"test/{ALL}", f"train_aug/{ALL}"],
            {"train": 6, "test": 6},
            "left aside: train_aug/, which",
        ),
        (
            [f"{ALL}/train", f"{ALL}/test"],
            {"train": 6, "test": 6},
            "every class folder holds the splits",
        ),
        # as in earlier versions
        ([f"train/{ALL}", f"val/{ALL}"], {"train": 6, "test": 6}, "validation: 10 % drawn"),
        (
            [f"train/{ALL}", f"val/{ALL}", "test"],
            {"train": 6, "validation": 6},
            "left aside: test/",
        ),
        ([f"train/{ALL}", "samples"], {"train": 6}, "left aside: samples/"),
        (
            [ALL],
            {"": 6},
            "6 images without splits; test: 20 % drawn; validation: 10 % of the rest drawn",
        ),
        ([f"{ALL}/images"], {"": 6}, "3 classes: buildings, forest, sea"),
        (
            [f"{ALL}/indoor", f"{ALL}/outdoor"],
            {"": 12},
            "all classes hold the same folders (indoor, outdoor)",
        ),
        (["buildings/a", "forest/b", "sea/c", "sea/d"], {"": 8}, "sub-folders of the classes"),
    ],
)
def test_splits_and_classes_are_told_apart_and_said(folders, expected, said, tmp_path):
    names, counts, lines = read(tree(tmp_path / "f", *folders))
    assert names == list(THREE) and counts == expected
    assert any(said in line for line in lines), lines


@pytest.mark.parametrize("name", ["train", "test", "val"])
def test_a_class_may_be_called_like_a_split(name, tmp_path):
    """COCO and VOC have a class ``train``; it holds images, and no class folders."""
    names, counts, lines = read(tree(tmp_path / "f", "aeroplane", "bus", name))
    assert names == sorted(["aeroplane", "bus", name]) and counts == {"": 6}
    assert f"{name} is a class: it holds images, and no class folders" in lines


@pytest.mark.parametrize(
    ("folders", "cause", "remedy"),
    [
        (["cat"], "there is one class, 'cat'", "the one that holds all class folders"),
        (
            ["fold1/{cat,dog}", "fold2/{cat,dog}", "fold3/{cat,dog}"],
            "hold the same folders (cat, dog)",
            "/fold1",
        ),
        (["1/{cat,dog}", "2/{cat,dog}", "3/{cat,dog}"], "which are the classes?", "/f/1"),
        (
            ["v1/train/{cat,dog}", "v1/test/{cat,dog}", "v2/train/{cat,dog}", "v2/test/{cat,dog}"],
            "the classes?",
            "/v1",
        ),
        (
            [f"{data}/{split}/{{cat,dog}}" for data in "abc" for split in ("train", "test")],
            "a, b, c in",
            "/f/a;",
        ),
        (["art/{cat,dog,emu}", "photo/{cat,dog,emu}"], "art, photo in", "/art"),
        (
            ["amazon/images/{cat,dog,emu}", "dslr/images/{cat,dog}"],
            "amazon, dslr in",
            "/amazon/images",
        ),
        (["train/{cat,dog}", "val/{cat,dog}", "valid/{cat,dog}"], "val, valid in", "move it out"),
        (["train/{cat,dog}", "training/{cat,dog}"], "are all train images", "move it out"),
        (["train/{cat,dog}", "probe/{cat,dog}"], "probe in", "/f/train"),
        (
            ["train/{steam,diesel}", "bus", "car"],
            "is it the training images, or a class?",
            "/f/train",
        ),
        (["train", "test"], "test, train holds no class folders", "one sub-folder per class"),
        (
            ["train/{cat,dog,emu}", "test/{cat,dog}"],
            "no usable test images in 1 of 3 classes: 'emu'",
            "move the test",
        ),
        (
            ["train/{cat,dog}", "test/{cat,Dog}"],
            "'Dog' (train has 'dog', not 'Dog')",
            "remove them",
        ),
        (
            ["train/{cat,dog}", "test/{cat,dog,emu}"],
            "no usable training images in 1 of 3 classes: 'emu'",
            "remove",
        ),
    ],
)
def test_what_could_be_two_things_is_refused_with_what_to_give(folders, cause, remedy, tmp_path):
    with pytest.raises(DataError) as caught:
        read(tree(tmp_path / "f", *folders))
    assert cause in caught.value.cause and remedy in caught.value.remedy
    assert len(str(caught.value).splitlines()) == 2


def test_the_folder_that_a_remedy_names_is_read(tmp_path):
    folds = tree(tmp_path / "f", *(f"fold{n}/{{cat,dog}}" for n in (1, 2)))
    photos = tree(tmp_path / "too low (1)", *TWO)
    for given in (folds, photos / "cat"):
        with pytest.raises(DataError) as caught:
            read(given)
        (option,) = [
            word for word in shlex.split(caught.value.remedy) if word.startswith("dataset.root=")
        ]
        # As a shell and Hydra read it.
        root = composed("dataset=image_folder", option.rstrip(";"))["dataset"]["root"]
        assert read(Path(root))[0] == list(TWO)


def test_folders_that_were_read_right_before_keep_their_fingerprint_and_others_do_not(tmp_path):
    def files(root: Path) -> str:
        return hash_names([str(file.relative_to(root)) for file in root.rglob("*.png")], root)

    same = {
        "a": [ALL],
        "b": [f"train/{ALL}", f"Val/{ALL}"],
        "c": ["blood", "test", "urine"],
        "d": [f"train/{ALL}"],
    }
    new = {
        "e": [f"training/{ALL}", f"testing/{ALL}"],
        "f": ["bus", "train"],
        "g": [f"{ALL}/train", f"{ALL}/test"],
    }
    for name, folders in (same | new).items():
        root = tree(tmp_path / name, *folders)
        assert (spec_of(root).fingerprint() == files(root)) == (name in same), name
    wrapped = tree(tmp_path / "h", *(f"archive/{folder}" for folder in same["b"]))
    assert spec_of(wrapped).fingerprint() == spec_of(wrapped / "archive").fingerprint()


def test_numbered_classes_have_two_orders_and_the_plan_says_which(tmp_path):
    root = tree(tmp_path / "f", *map(str, range(12)), num=1)
    by_text = ["0", "1", "10", "11", *map(str, range(2, 10))]
    names, _, lines = read(root)
    assert names == by_text  # as torchvision has it
    assert any(
        "in the order of text" in line and "dataset.class_order=number" in line for line in lines
    )
    names, _, lines = read(root, class_order="number")
    assert names == [str(i) for i in range(12)] and any(
        "order of numbers" in line for line in lines
    )
    assert not any("order" in line for line in read(tree(tmp_path / "g", *TWO))[2])
    assert not any(
        "order" in line for line in read(tree(tmp_path / "h", *map(str, range(10)), num=1))[2]
    )
    assert ordered(["b2", "b10", "a", "b", "02"], "number") == ["02", "a", "b", "b2", "b10"]


def test_names_that_stand_for_a_split_and_names_that_do_not():
    for name in ("train", "Train ", "training-set", "trainset", "train2017", "train_images", "tr"):
        assert split_of(name) == ("train", True), name
    assert (
        split_of("hold-out") == split_of("tests") == ("test", True)
        and split_of("eval")[0] == "validation"
    )
    assert split_of("cifar_test") == ("test", False)
    for name in ("train_aug", "test_notes", "contest", "images", "1", "strain", "pred"):
        assert split_of(name) is None, name


def test_the_plan_says_what_was_recognised_before_anything_is_computed(tmp_path, capsys):
    root = tree(tmp_path / "f", f"training/{ALL}", f"testing/{ALL}", num=4)
    arguments = [
        *(
            "dataset=image_folder",
            f"dataset.root={root}",
            "dataset.image_size=8",
            f"paths.outputs={tmp_path}/out",
        ),
        *("encoder=pixels", "generator=decode", "run.until=index", "ipc=1"),
        *(
            "protocol=smoke",
            "baselines=none",
            "ablation=none",
            "measure.curve=[]",
            "measure.num_folds=0",
        ),
    ]
    run_here(*arguments, "run.plan_only=true")
    planned = capsys.readouterr().out
    assert (
        "image folder f, 3 classes: buildings, forest, sea" in planned
        and "test 12 (testing/)" in planned
    )
    assert all(
        len(line) <= 80 for line in planned.splitlines() if "classes" in line or "testing/" in line
    )
    assert not list((tmp_path / "out").glob("store/index/*/*"))
    run_here(*arguments)
    out = capsys.readouterr().out
    assert out.index("3 classes") < out.index("computed")
    config = composed(*arguments)
    check(config)
    (manifest,) = (tmp_path / "out").glob("store/index/*/manifest.json")
    manifest.write_text(
        manifest.read_text().replace("3 classes: buildings", "3 classes of the store: buildings")
    )
    run_here(*arguments, "run.plan_only=true")  # everything is in the store: nothing is opened
    assert "3 classes of the store: buildings" in capsys.readouterr().out
    assert not [step for step in prepare(config).steps if step.state == "miss"]
