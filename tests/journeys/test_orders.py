"""Outputs in another order than the labels are found out, honest weak teachers are not,
and files name the order.
"""

from __future__ import annotations

import io
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ddoq.data.chosen import further, spread
from ddoq.data.class_order import outputs_of_classes, read_order, write_order
from ddoq.data.label_space import LabelSpace
from ddoq.errors import DataError, StageError
from ddoq.job import prepare
from ddoq.labelers import CIFARResNet, examine
from ddoq.labelers.orders import compare_orders, doubtful_classes
from ddoq.pipeline.care import examine as examine_artefact
from ddoq.pipeline.graph import unique
from ddoq.pipeline.plans import plan
from ddoq.stages.models import _warn_of_prompts
from support.runs import SHARED, composed, run_here

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


# --- simulated teachers -----------------------------------------------------------------------


def honest(num_classes: int, accuracy: float, confused: str) -> np.ndarray:
    """Return the probability of each answer (column) to images of each class
    (row) of an honest teacher.
    """
    own, answers = np.arange(num_classes), np.zeros((num_classes, num_classes))
    if confused == "spread":
        answers += (1 - accuracy) / (num_classes - 1)
    elif confused == "next":  # cats for dogs, dogs for horses, ...
        answers[own, (own + 1) % num_classes] = 1 - accuracy
    elif confused == "pairs":  # at 50 %: which of two classes it is, a coin decides
        answers[own, own ^ 1] = 1 - accuracy
    answers[own, own] = accuracy
    if confused == "collapsed":  # every third class is never named
        answers[:] = 0.1 / num_classes
        answers[own, own + ((own % 3 == 0) & (own < num_classes - 1))] += 0.9
    return answers


def permutation(num_classes: int, kind: str, random: np.random.Generator) -> np.ndarray:
    """Return what a permuted teacher answers for each answer of an honest one."""
    answers = np.arange(num_classes)
    few = random.choice(num_classes, 3, replace=False)
    if kind == "pair":
        answers[few[:2]] = few[1::-1]
    elif kind == "three":
        answers[few] = np.roll(few, 1)
    elif kind == "text":
        answers = np.array([int(number) for number in sorted(map(str, range(num_classes)))])
    elif kind == "all":
        answers = random.permutation(num_classes)
    return answers


def draw(answers: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    thresholds = answers.cumsum(1)[labels]
    return np.minimum((random.random(len(labels))[:, None] > thresholds).sum(1), len(answers) - 1)


@pytest.mark.parametrize(("num_classes", "num"), [(12, 120), (100, 6), (1000, 1)])
@pytest.mark.parametrize(
    ("accuracy", "confused"),
    [
        (0.5, "spread"),
        (0.5, "next"),
        (0.5, "pairs"),
        (0.9, "collapsed"),
        (0.7, "spread"),
        (1.0, "spread"),
    ],
)
@pytest.mark.parametrize("per_class", [10, 50])
def test_an_honest_weak_teacher_keeps_its_order(num_classes, num, accuracy, confused, per_class):
    """Fails where noise, or classes that are confused with each other,
    are taken for another order.
    """
    answers = honest(num_classes, accuracy, confused)
    labels = np.repeat(np.arange(num_classes), per_class)
    for seed in range(num):
        trial = compare_orders(
            draw(answers, labels, np.random.default_rng(seed)), labels, num_classes
        )
        assert not trial.moved and trial.p_value > 1e-3 and trial.images_per_class == per_class


@pytest.mark.parametrize("kind", ["pair", "three", "text", "all"])
@pytest.mark.parametrize("accuracy", [0.5, 0.75, 1.0])
@pytest.mark.parametrize("num_classes", [12, 100, 1000])
def test_swapped_classes_are_found_among_a_few_and_among_a_thousand(num_classes, accuracy, kind):
    """A test over all classes would not see two of a thousand;
    one cycle without the others does.
    """
    random = np.random.default_rng(num_classes)
    swapped, labels = permutation(num_classes, kind, random), np.repeat(np.arange(num_classes), 60)
    given = swapped[draw(honest(num_classes, accuracy, "spread"), labels, random)]
    trial = compare_orders(given, labels, num_classes)
    assert trial.outputs == tuple(swapped.tolist()) and trial.relabelled > trial.given
    assert json.loads(json.dumps(trial.to_facts()))["p_value"] == trial.p_value < 1e-3


def test_with_five_judged_images_two_of_a_thousand_need_the_further_images():
    """Ten images in a row for the other order are 1 in 1,024;
    the second look is at the doubtful classes alone.
    """
    random, num_classes, asked = np.random.default_rng(2), 1000, []
    swapped, answers = permutation(num_classes, "pair", random), honest(num_classes, 0.6, "spread")
    names = [f"c{label}" for label in range(num_classes)]
    pair = np.flatnonzero(swapped != np.arange(num_classes))

    def look(labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        given = torch.from_numpy(swapped[draw(answers, labels, random)])
        return torch.nn.functional.one_hot(given, num_classes).float(), torch.from_numpy(labels)

    def more(classes) -> tuple[torch.Tensor, torch.Tensor]:
        asked.extend(classes)
        return look(np.repeat(classes, 50))

    logits, labels = look(np.repeat(np.arange(num_classes), 10))
    assert examine(logits, labels, "t", names)["order"]["images_per_class"] == 10
    with pytest.raises(StageError) as caught:
        examine(logits, labels, "t", names, more, lambda trial: f"moved {trial.moved}")
    assert set(pair) <= set(asked) and len(asked) < 20
    assert (
        "2 of 1000 look permuted" in caught.value.cause
        and caught.value.remedy == f"moved {pair.tolist()}"
    )


def test_a_teacher_that_takes_cats_for_dogs_is_right_and_one_that_swaps_them_is_not():
    """Counter-example: 60 % of the cats are called dogs, and nearly all dogs, too:
    swapped, it would be worse.
    """
    labels = np.repeat(np.arange(12), 100)
    answers = honest(12, 0.9, "spread")
    answers[3], answers[5] = 0, 0
    answers[3, [3, 5]], answers[5, [3, 5]] = (0.4, 0.6), (0.1, 0.9)
    given = draw(answers, labels, np.random.default_rng(0))
    assert not compare_orders(given, labels, 12).moved
    swapped = np.array([0, 1, 2, 5, 4, 3, *range(6, 12)])
    assert compare_orders(swapped[given], labels, 12).moved == [3, 5]


def test_a_class_with_many_images_does_not_take_the_answer_of_one_with_few():
    """All images of class 0 are called 1, and those of class 1, too:
    relabelled, more images would be right.
    """
    labels = np.repeat([0, 1, 2], [900, 20, 300])
    given = np.where(labels == 0, 1, labels)
    assert not compare_orders(given, labels, 3).moved
    # And a class without images is not taken for a swapped one.
    assert not compare_orders(given, labels, 4).moved
    assert not doubtful_classes(given, labels, 3)


# --- images to look at ------------------------------------------------------------------------


def test_images_are_chosen_from_the_whole_split_and_topped_up_where_a_class_has_few():
    validation, train = np.repeat([0, 1, 2], [40, 40, 3]), np.repeat([0, 1, 2], 30)
    labels = np.concatenate([validation, train])
    assert np.array_equal(
        spread(labels[:80], 80, 50, 10), np.unique(np.linspace(0, 79, 50).astype(int))
    )
    chosen = spread(labels, 83, 40, 10)
    counts = np.bincount(labels[chosen])
    assert len(set(chosen)) == len(chosen) and counts[2] == 10 and set(range(80, 83)) <= set(chosen)
    assert (labels[chosen[chosen >= 83]] == 2).all()
    new = further(labels, 83, chosen, {0: 60, 1: 2})
    assert np.bincount(labels[new]).tolist() == [40 + 30 - counts[0], 2] and not set(new) & set(
        chosen
    )
    assert len(further(labels, 83, chosen, {})) == 0


# --- files ------------------------------------------------------------------------------------

SPACE = LabelSpace.from_classes(["10", "2", "größe"])


@pytest.mark.parametrize("text", ['["2", "größe", 10]', "2\ngröße\n10\n", "\ufeff2\r\ngröße\r\n10"])
def test_a_file_names_the_class_of_every_output(text, tmp_path):
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8")
    names = read_order(str(tmp_path / "classes.txt"), "teacher.order")
    assert outputs_of_classes(names, SPACE, 3, "teacher.order") == [2, 0, 1]
    write_order(tmp_path / "orders" / "new.json", names)
    write_order(tmp_path / "orders" / "new.json", ["not over what somebody may have edited"])
    assert read_order(str(tmp_path / "orders" / "new.json"), "teacher.order") == [
        "2",
        "größe",
        "10",
    ]


def test_wordnet_ids_name_classes_and_other_outputs_may_be_any():
    space = LabelSpace.from_classes(["n01440764", "n03394916"])
    names = ["n03394916", "something else", "tench"]
    assert outputs_of_classes(names, space, 3, "teacher.order") == [2, 0]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["2", "größe"], ["2 names for 3 outputs"]),
        (["2", "größe", "grösse"], ["no output is named '10'", "write '10'"]),
        (["2", "10", "grösse"], ["no output is named 'größe'", "did you mean 'grösse'"]),
        (["2", "10", "2"], ["outputs 0 and 2", "'2'", "'größe' is in no line"]),
    ],
)
def test_a_wrong_file_is_told_by_what_is_wrong_in_it(names, words):
    with pytest.raises(DataError) as caught:
        outputs_of_classes(names, SPACE, 3, "teacher.order")
    assert str(caught.value).startswith("teacher.order: ") and all(
        word in str(caught.value) for word in words
    )


@pytest.mark.parametrize("content", [b'["a", {}]', b"[1", b"\xff\xfe\x00", b'[["a"]]'])
def test_what_is_no_list_of_names_is_two_lines(content, tmp_path):
    (tmp_path / "order.json").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_order(str(tmp_path / "order.json"), "teacher.order")
    with pytest.raises(DataError, match=r"teacher.order: there is no file .*none.json"):
        read_order(str(tmp_path / "none.json"), "teacher.order")


# --- a real teacher ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of CIFAR-10's test images, 48 of each class, and their pixels and labels."""
    if not (SHARED / "cifar10").is_dir():
        pytest.skip(f"needs the real data sets in {SHARED}")
    table = pq.read_table(SHARED / "cifar10" / "test.parquet")
    labels = np.array(table["label"].to_pylist())
    chosen = np.concatenate([np.flatnonzero(labels == label)[:48] for label in range(10)])
    folder, pixels = tmp_path_factory.mktemp("photographs"), []
    for number, row in enumerate(table.take(chosen.tolist())["image"].to_pylist()):
        place = folder / ("test" if number % 8 == 0 else "train") / NAMES[number // 48]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(row["bytes"])
        pixels.append(np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")))
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    return folder, images, torch.from_numpy(labels[chosen])


@pytest.fixture(scope="module")
def swapped(tmp_path_factory) -> Path:
    """The published ResNet-20 with its outputs for cats and dogs exchanged."""
    weights = dict(np.load(SHARED / "cifar10_resnets" / "resnet20.npz"))
    order = [0, 1, 2, 5, 4, 3, 6, 7, 8, 9]
    weights |= {name: weights[name][order] for name in ("linear.weight", "linear.bias")}
    np.savez(path := tmp_path_factory.mktemp("swapped teacher") / "swapped.npz", **weights)
    return path


@pytest.mark.parametrize("noise", [0.0, 0.06])
def test_a_real_teacher_is_refused_only_if_it_is_permuted(noise, photographs, swapped, shared):
    """With noise in the images it is right on 57 % and takes cats for frogs and birds:
    still no other order.
    """
    _, images, labels = photographs
    noisy = (
        images + noise * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    ).clamp(0, 1)
    good = CIFARResNet(str(shared / "cifar10_resnets" / "resnet20.npz"), 10)
    facts = examine(good(noisy), labels, "resnet20", NAMES)
    assert (facts["top1"] < 0.65) == bool(noise) and facts["order"]["p_value"] == 1
    if not noise:
        with pytest.raises(
            StageError, match="2 of 10 look permuted .*of class 'dog' fit images of class 'cat'"
        ):
            examine(CIFARResNet(str(swapped), 10)(noisy), labels, "resnet20", NAMES)
        order = [*NAMES[:3], "dog", "deer", "cat", *NAMES[6:]]
        space = LabelSpace.from_classes(NAMES)
        repaired = CIFARResNet(str(swapped), 10, order=order, label_space=space)
        torch.testing.assert_close(repaired(noisy[:9]), good(noisy[:9]))


def arguments(folder: Path, outputs: Path, *more: str) -> list[str]:
    return [
        "dataset=image_folder",
        f"dataset.root={folder}",
        "dataset.image_size=32",
        f"paths.outputs={outputs}",
        "encoder=pixels",
        "generator=decode",
        "protocol=smoke",
        "protocol.labels=soft",
        "student=convnet_d3_w16",
        "baselines=none",
        "ablation=none",
        "measure.curve=[]",
        "measure.num_folds=0",
        "ipc=2",
        "run.until=check_teacher",
        "trainer.accelerator=cpu",
        *more,
    ]


@pytest.mark.parametrize(
    ("teacher", "key"),
    [("cifar10_resnet20", "teacher"), ("cifar10_resnets", "teacher.members.resnet20")],
)
def test_the_remedy_works_when_it_is_pasted(teacher, key, photographs, swapped, shared, tmp_path):
    """A permuted member of an ensemble that is right as a whole is found, too."""
    common = [f"teacher={teacher}", f"paths.models={shared}", f"{key}.path='{swapped}'"]
    with pytest.raises(StageError) as caught:
        run_here(*arguments(photographs[0], tmp_path / "my outputs", *common))
    cause, remedy = str(caught.value).split("\n")
    assert "2 of 10 look permuted" in cause
    pasted = shlex.split(re.search(rf"set (.*{re.escape(key)}\.order=.*), which", remedy)[1])
    run_here(*arguments(photographs[0], tmp_path / "my outputs", *common, *pasted))
    (manifest,) = (tmp_path / "my outputs" / "store" / "check_teacher").glob("*/manifest.json")
    facts = json.loads(manifest.read_text())["facts"]
    assert (
        facts["top1"] > 0.85
        and facts["order"]["p_value"] == 1
        and facts["order"]["images_per_class"] >= 10
    )
    assert set(facts.get("members", {})) == (
        {"resnet20", "resnet32", "resnet56"} if key != "teacher" else set()
    )


def test_an_order_is_identity_by_content_and_no_order_is_none(photographs, swapped, tmp_path):
    def key(*more: str) -> str:
        common = ["teacher=cifar10_resnet20", f"teacher.path='{swapped}'", *more]
        job = prepare(composed(*arguments(photographs[0], tmp_path, *common)))
        (node,) = (step.node for step in job.steps if step.node.stage == "check_teacher")
        assert more or "order" not in node.identity["teacher"]
        return node.key

    for name, names in (("one", NAMES), ("two", NAMES), ("other", NAMES[::-1])):
        (tmp_path / name).write_text("\n".join(names))
    keys = [key(f"teacher.order={tmp_path / name}") for name in ("one", "two", "other")]
    assert keys[0] == keys[1] and len({key(), *keys}) == 3
    with pytest.raises(DataError, match="teacher.order: there is no file"):
        key("teacher.order=nowhere.txt")


def test_a_wrong_order_stops_the_run_before_a_teacher_is_read(photographs, swapped, tmp_path):
    (tmp_path / "order.txt").write_text("\n".join([*NAMES[:9], "lorry"]))
    common = [
        "teacher=cifar10_resnet20",
        f"teacher.path='{swapped}'",
        f"teacher.order={tmp_path / 'order.txt'}",
    ]
    with pytest.raises(DataError, match="teacher.order: no output is named 'truck'"):
        run_here(*arguments(photographs[0], tmp_path, *common))
    assert not (tmp_path / "store" / "check_teacher").exists()


def test_an_old_verdict_is_examined_again_under_its_key_until_it_is_replaced(
    photographs, swapped, tmp_path
):
    """What is behind it is finished, so nothing else would ask for it;
    a refusal must not make it forgotten.
    """
    asked = arguments(
        photographs[0], tmp_path, "teacher=cifar10_resnet20", f"teacher.path='{swapped}'"
    )
    asked = [word if word != "run.until=check_teacher" else "run.until=evaluate" for word in asked]
    job = prepare(composed(*asked))
    nodes = unique(job.experiment.targets("evaluate"))
    (verdict,) = (node for node in nodes if node.stage == "check_teacher")
    assert verdict.required == ("order",)
    for node in (node for node in job.experiment.targets("evaluate") if node.stage == "evaluate"):
        job.store.ensure(node, lambda folder: {"top1": 0.5})

    def states() -> dict[str, str]:
        return {
            step.node.stage: step.state
            for step in plan(job.experiment.targets("evaluate"), job.store)
        }

    # Nothing is stored: nothing is asked.
    assert states()["check_teacher"] == "idle" and states()["evaluate"] == "hit"
    job.store.ensure(
        replace(verdict, required=()), lambda folder: {"top1": 0.75, "num_images": 420}
    )
    assert (
        states() | {"index": "miss", "check_teacher": "miss", "generate": "idle", "evaluate": "hit"}
        == states()
    )
    for _ in range(2):
        with pytest.raises(StageError, match="look permuted"):
            run_here(*asked)
        assert examine_artefact(job.store.path(verdict)).state == "intact"


def test_prompts_of_numbers_are_named_and_those_of_words_are_not(capsys):
    prompt = {"prompt": "a photo of a {name}"}
    _warn_of_prompts(prompt, ["tench", "10", "a", "n99999999"])
    assert "3 of 4 class names" in (said := capsys.readouterr().out) and "'10'" in said
    _warn_of_prompts(prompt, ["tench", "T-shirt", "4 wheels", "鱼类"])
    _warn_of_prompts({"prompt": "texture"}, ["1", "2"])
    _warn_of_prompts({}, ["1", "2"])
    assert not capsys.readouterr().out


# --- a generator that was trained elsewhere ---------------------------------------------------


def colours(folder: Path, names: list[str]) -> Path:
    """Save small pictures of classes that differ in the colours of their halves."""
    random = np.random.default_rng(0)
    for number, name in enumerate(names):
        for split, num in (("train", 40), ("test", 2)):
            place = folder / split / name
            place.mkdir(parents=True)
            for i in range(num):
                pixels = np.full((8, 8, 3), 128.0)
                pixels[:, :4, 0], pixels[:, 4:, 1] = (
                    20 + 100 * (number % 3),
                    20 + 600 * (number // 3) / len(names),
                )
                noisy = np.clip(pixels + random.normal(0, 8, pixels.shape), 0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(place / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("trained_on", "given"),
    [
        (["a", "b", "c", "d", "e", "f"], ["a", "e", "c", "d", "b", "f"]),
        pytest.param(
            [f"{number:02}" for number in range(18)],
            [str(number) for number in range(18)],
            marks=pytest.mark.slow,  # half a minute
        ),
    ],
    ids=["swapped", "numbers"],
)
def test_a_generator_that_knows_the_classes_in_another_order_is_refused(
    trained_on, given, tmp_path
):
    """Names of classes condition it: sorted as text,
    18 numbers are other classes than those it was trained on.
    """

    def run(folder: Path, *more: str) -> dict | None:
        asked = arguments(
            folder, tmp_path, "generator=dit", "protocol.labels=hard", "run.until=generate", *more
        )
        run_here(
            *asked,
            "dataset.image_size=8",
            "ipc=1",
            "generator.fit.num_layers=2",
            "generator.fit.num_steps=400",
        )
        found = (tmp_path / "store" / "check_generator").glob("*/manifest.json")
        latest = max(found, key=lambda path: path.stat().st_mtime, default=None)
        return json.loads(latest.read_text())["facts"] if latest else None

    data = colours(tmp_path / "data", trained_on)
    assert run(data) is None  # what is fitted here needs no trial
    (fitted,) = (
        path.parent for path in (tmp_path / "store" / "fit_generator").glob("*/manifest.json")
    )
    facts = run(data, f"generator.path={fitted}")
    assert facts.get("tells_classes", True) and (
        facts["p_value"] is None or facts["p_value"] > 1e-3
    )
    other = colours(tmp_path / "other", given)
    with pytest.raises(StageError, match="knows the classes in another order") as caught:
        run(other, f"generator.path={fitted}")
    pasted = re.search(r"set (generator.order=\S+), which", caught.value.remedy)[1]
    assert run(other, f"generator.path={fitted}", pasted)["tells_classes"]
