"""Teachers read foreign weights, answer in the label order of the data set,
and are refused where they are useless.
"""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import batch_norm, conv2d, interpolate, linear, pad, relu

from ddoq.config.choices import files
from ddoq.data.label_space import LabelSpace
from ddoq.errors import ConfigError, DataError, StageError
from ddoq.labelers import CIFARResNet, Ensemble, PretrainedTeacher, Teacher, examine
from ddoq.labelers.cifar_resnet import ResNet
from support.runs import SHARED, choice

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
#: tench, French horn, cassette player: in another order than ImageNet-1K has them
SPACE = LabelSpace.from_classes(["n01440764", "n03394916", "n02979186"])
NUMBERS = [0, 566, 482]
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def randomized(network: nn.Module) -> nn.Module:
    """Give a network's parameters and statistics values that are all different,
    so that none can be mistaken.
    """
    random = torch.Generator().manual_seed(1)
    for name, values in network.state_dict().items():
        if name.endswith("running_var"):
            values.uniform_(0.5, 2, generator=random)
        elif values.is_floating_point():
            values.normal_(0, 0.2, generator=random)
    return network.eval()


def two_lines(caught, *words: str) -> None:
    assert str(caught.value).count("\n") == 1 and all(
        word in str(caught.value) for word in words
    ), caught.value


# --- CIFAR ResNets ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photographs() -> tuple[torch.Tensor, torch.Tensor]:
    """200 images of the test split of CIFAR-10, which is sorted by class: every 50th."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real data sets in {SHARED}")
    table = pq.read_table(SHARED / "cifar10_jpeg" / "test.parquet").take(list(range(0, 10_000, 50)))
    pixels = [
        np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB"))
        for row in table["image"].to_pylist()
    ]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255, torch.tensor(
        table["label"].to_pylist()
    )


@pytest.mark.parametrize("depth", [20, 32, 56])
def test_published_cifar_resnets_know_real_images(depth, photographs):
    """Fails where padding of the shortcut, order of layers
    or normalisation are not those of the training.
    """
    teacher = CIFARResNet(str(SHARED / "cifar10_resnets" / f"resnet{depth}.npz"), 10, depth)
    facts = examine(teacher(photographs[0]), photographs[1], f"resnet{depth}", NAMES)
    assert facts["num_images"] == 200 and facts["top1"] > 0.75


def by_hand(
    weights: dict[str, torch.Tensor], images: torch.Tensor, num_blocks: int
) -> torch.Tensor:
    """Evaluate the network of He et al. 2016, section 4.2, from its weights alone."""

    def norm(name: str, hidden: torch.Tensor) -> torch.Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        return batch_norm(hidden, *[weights[f"{name}.{part}"] for part in parts])

    hidden = relu(norm("bn1", conv2d((images - MEAN) / STD, weights["conv1.weight"], padding=1)))
    for group in (1, 2, 3):
        for block in range(num_blocks):
            at, stride = f"layer{group}.{block}", 2 if group > 1 and block == 0 else 1
            inner = relu(
                norm(
                    f"{at}.bn1",
                    conv2d(hidden, weights[f"{at}.conv1.weight"], stride=stride, padding=1),
                )
            )
            inner = norm(f"{at}.bn2", conv2d(inner, weights[f"{at}.conv2.weight"], padding=1))
            if stride == 2:
                new = hidden.shape[1] // 2
                hidden = pad(hidden[..., ::2, ::2], (0, 0, 0, 0, new, new))
            hidden = relu(inner + hidden)
    return linear(hidden.mean((2, 3)), weights["linear.weight"], weights["linear.bias"])


@pytest.fixture
def saved(tmp_path):
    """A random ResNet-20 for 7 classes in the published form,
    which has no step counters of the batch norms.
    """
    weights = randomized(ResNet(20, 7)).state_dict()
    weights = {name: values for name, values in weights.items() if "num_batches" not in name}
    np.savez(tmp_path / "resnet.npz", **{name: values.numpy() for name, values in weights.items()})
    return str(tmp_path / "resnet.npz"), weights


def test_cifar_resnet_computes_what_the_paper_says(saved):
    images = noise(3, 3, 32, 32)
    found = CIFARResNet(saved[0], 7)(images)
    torch.testing.assert_close(found, by_hand(saved[1], images, 3), rtol=1e-4, atol=1e-4)
    larger = noise(2, 3, 50, 40)
    expected = by_hand(saved[1], interpolate(larger, (32, 32), mode="bilinear", antialias=True), 3)
    torch.testing.assert_close(CIFARResNet(saved[0], 7)(larger), expected, rtol=1e-4, atol=1e-4)


def test_cifar_resnet_refuses_files_of_something_else(saved, tmp_path):
    path, weights = saved
    with pytest.raises(DataError) as caught:
        CIFARResNet(path, 7, depth=32)
    two_lines(caught, "teacher.depth", "a ResNet-20, not a ResNet-32", "set teacher.depth=20")
    with pytest.raises(ConfigError, match="teacher.depth: 21 is not"):
        CIFARResNet(path, 7, depth=21)
    with pytest.raises(DataError) as caught:
        CIFARResNet(path, 100)
    two_lines(caught, "teacher.path", "knows 7 classes, the data set has 100")
    with pytest.raises(DataError, match="teacher.path: there is no file"):
        CIFARResNet(str(tmp_path / "none.npz"), 7)
    with pytest.raises(DataError, match="teacher.path: no weights are given"):
        CIFARResNet(None, 7)
    np.savez(
        tmp_path / "part.npz",
        **{k: v.numpy() for k, v in weights.items() if k != "layer2.1.bn2.weight"},
    )
    with pytest.raises(DataError) as caught:
        CIFARResNet(str(tmp_path / "part.npz"), 7)
    two_lines(caught, "teacher.path", "no ResNet-20", "layer2.1.bn2.weight")


@pytest.mark.parametrize("kind", ["text", "truncated", "array", "objects"])
def test_cifar_resnet_reads_plain_archives_only(kind, saved, tmp_path):
    """A pickle inside an archive must not run: its class would write a file."""
    path = tmp_path / "bad.npz"
    if kind == "text":
        path.write_bytes(b"no weights")
    elif kind == "truncated":
        path.write_bytes(Path(saved[0]).read_bytes()[:5000])
    elif kind == "array":
        with path.open("wb") as handle:
            np.save(handle, np.zeros(3))
    else:
        np.savez(path, **{"linear.weight": np.array([_Harm(tmp_path / "harm")], dtype=object)})
    with pytest.raises(DataError) as caught:
        CIFARResNet(str(path), 7)
    two_lines(caught, "teacher.path", "no NumPy archive of weights", "numpy.savez")
    assert not (tmp_path / "harm").exists()


class _Harm:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


# --- what every teacher does ------------------------------------------------------------------


class Flat(nn.Module):
    """A network whose logits are written down by hand: linear maps of the pixels."""

    def __init__(self, num_pixels: int, num_outputs: int):
        super().__init__()
        self.inner, self.drop = nn.Linear(num_pixels, 6), nn.Dropout(0.5)
        self.outer = nn.Linear(6, num_outputs)

    def forward(self, images):
        return self.outer(self.drop(self.inner(images.flatten(1))))


def test_teacher_normalises_picks_its_columns_and_gives_what_the_classifier_sees():
    network, images = Flat(3 * 16, 9), noise(5, 3, 4, 4)
    weights = network.state_dict()
    hidden = linear(
        ((images - MEAN) / STD).flatten(1), weights["inner.weight"], weights["inner.bias"]
    )
    logits = linear(hidden, weights["outer.weight"], weights["outer.bias"])
    whole = Teacher(network, MEAN.flatten().tolist(), STD.flatten().tolist())
    some = Teacher(network, MEAN.flatten().tolist(), STD.flatten().tolist(), columns=[7, 0, 2])
    torch.testing.assert_close(whole(images), logits)
    torch.testing.assert_close(some(images), logits[:, [7, 0, 2]])
    torch.testing.assert_close(some.features(images), hidden)
    assert (whole.num_classes, some.num_classes) == (9, 3)


def test_a_teacher_inside_a_module_that_is_trained_stays_in_eval_mode_without_gradients():
    """With dropout on, two answers to one question differ."""
    teacher = Teacher(Flat(48, 9), [0.5] * 3, [0.2] * 3)
    nn.ModuleList([teacher]).train()
    images = noise(5, 3, 4, 4).requires_grad_()
    assert torch.equal(teacher(images), teacher(images))
    assert not teacher(images).requires_grad and not any(
        p.requires_grad for p in teacher.parameters()
    )
    student = nn.Linear(48, 9)  # logits may be targets of a loss: an inference tensor may not
    (student(images.flatten(1)) - teacher(images)).square().mean().backward()
    assert student.weight.grad.abs().sum() > 0


def test_grey_images_become_three_channels_and_other_sides_are_resized():
    network, grey = Flat(3 * 16, 9), noise(5, 1, 4, 4)
    teacher = Teacher(network, MEAN.flatten().tolist(), STD.flatten().tolist(), image_size=4)
    torch.testing.assert_close(teacher(grey), teacher(torch.cat([grey] * 3, 1)))
    one = Teacher(Flat(16, 9), [0.3], [0.2], image_size=4)
    assert one(grey).shape == (5, 9)
    large = noise(5, 3, 8, 8)
    # halving with antialias: a triangle over 4 pixels;
    # by hand for the pixel at (1, 1), where nothing is cut off
    weights = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    seen = teacher._prepared(large) * STD + MEAN
    by_hand = torch.einsum("bchw,h,w->bc", large[:, :, 1:5, 1:5], weights, weights)
    torch.testing.assert_close(seen[:, :, 1, 1], by_hand, rtol=1e-4, atol=1e-5)
    assert torch.equal(
        teacher(large[:, :, :4, :4]),
        Teacher(network, [*MEAN.flatten()], [*STD.flatten()])(large[:, :, :4, :4]),
    )


def test_a_network_without_a_linear_layer_is_refused():
    with pytest.raises(ConfigError) as caught:
        Teacher(nn.Conv2d(3, 10, 4), [0.5], [0.5])
    two_lines(caught, "teacher", "no linear layer")


def test_ensemble_is_the_mean_of_logits_and_the_features_side_by_side():
    one, two = (Teacher(Flat(48, 9), [0.5] * 3, [0.2] * 3, columns=range(4)) for _ in range(2))
    both, images = Ensemble({"one": one, "two": two}), noise(5, 3, 4, 4)
    torch.testing.assert_close(both(images), (one(images) + two(images)) / 2)
    torch.testing.assert_close(
        both.features(images), torch.cat([one.features(images), two.features(images)], 1)
    )
    assert both.features(images).shape == (5, 12) and both.num_classes == 4
    with pytest.raises(ConfigError, match="teacher.members"):
        Ensemble({})


# --- published classifiers --------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet10t(tmp_path_factory) -> tuple[str, nn.Module]:
    """A random timm network with ImageNet's 1,000 outputs and the file of its weights."""
    path = str(tmp_path_factory.mktemp("timm") / "resnet10t.safetensors")
    network = randomized(timm.create_model("resnet10t", num_classes=1000))
    save_file(network.state_dict(), path)
    return path, network


def test_imagenet_teacher_of_timm_answers_for_the_classes_of_the_data_set(resnet10t):
    path, network = resnet10t
    teacher = PretrainedTeacher("resnet10t", SPACE, 3, path, image_size=64)
    images = noise(2, 3, 64, 64)
    with torch.no_grad():
        expected = network((images - MEAN) / STD)[:, NUMBERS]
    torch.testing.assert_close(teacher(images), expected)
    rows = network.fc.weight[NUMBERS], network.fc.bias[NUMBERS]
    assert teacher.features(images).shape == (2, 512)
    torch.testing.assert_close(
        linear(teacher.features(images), *rows), expected, rtol=1e-4, atol=1e-3
    )
    assert "state_dict" not in teacher.network.pretrained_cfg  # else the weights are held twice
    # timm's for these weights.
    assert PretrainedTeacher("resnet10t", SPACE, 3, path).image_size == 176


def test_imagenet_teacher_needs_classes_of_imagenet(resnet10t):
    with pytest.raises(ConfigError) as caught:
        PretrainedTeacher(
            "resnet10t", LabelSpace.from_classes(["my cat", "n01440764"]), 2, resnet10t[0]
        )
    two_lines(caught, "teacher: class 'my cat' has no ImageNet-1K index", "teacher=own")


def test_timm_teacher_of_the_data_set_itself(resnet10t, tmp_path):
    path = str(tmp_path / "three.safetensors")
    network = randomized(timm.create_model("resnet10t", num_classes=3))
    save_file(network.state_dict(), path)
    teacher = PretrainedTeacher("resnet10t", SPACE, 3, path, classes="dataset")
    images = noise(2, 3, 40, 40)
    with torch.no_grad():
        # The classifier is the file's.
        torch.testing.assert_close(teacher(images), network((images - MEAN) / STD))
    for file, classes, numbers in (
        (resnet10t[0], "dataset", "1000 classes, not the 3"),
        (path, "imagenet", "3 classes, not the 1000"),
    ):
        with pytest.raises(DataError) as caught:
            PretrainedTeacher("resnet10t", SPACE, 3, file, classes=classes)
        two_lines(caught, "teacher.classes", numbers, "teacher.path")


def test_a_network_of_one_side_is_built_for_the_side_that_is_asked_for(tmp_path):
    """timm interpolates a ViT's positions; without it, 32 pixels do not fit a network for 224."""
    path = str(tmp_path / "vit.safetensors")
    save_file(timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=2).state_dict(), path)
    with pytest.raises(
        DataError,
        match=r"teacher.path: the weights of vit_tiny_patch16_224 do not load \(.*blocks.2",
    ):
        PretrainedTeacher("vit_tiny_patch16_224", SPACE, 3, path, classes="dataset")
    save_file(timm.create_model("vit_tiny_patch16_224", num_classes=3).state_dict(), path)
    own = PretrainedTeacher("vit_tiny_patch16_224", SPACE, 3, path, classes="dataset")
    small = PretrainedTeacher(
        "vit_tiny_patch16_224", SPACE, 3, path, classes="dataset", image_size=32
    )
    assert own.image_size == 224 and small.network.pos_embed.shape[1] == 1 + 2 * 2
    assert small(noise(2, 3, 20, 20)).shape == (2, 3) and small.features(
        noise(2, 3, 20, 20)
    ).shape == (2, 192)
    assert small.mean.flatten().tolist() == [0.5] * 3  # not ImageNet's


@pytest.mark.parametrize("classes", ["imagenet", "dataset"])
def test_torchvision_teacher_reads_a_published_file(classes, tmp_path):
    outputs = 1000 if classes == "imagenet" else 3
    network = randomized(torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=outputs))
    path, images = str(tmp_path / "shufflenet.pth"), noise(2, 3, 48, 48)
    torch.save(network.state_dict(), path)
    options = {"library": "torchvision", "classes": classes}
    teacher = PretrainedTeacher("shufflenet_v2_x0_5", SPACE, 3, path, **options, image_size=48)
    with torch.no_grad():
        expected = network((images - MEAN) / STD)
    torch.testing.assert_close(
        teacher(images), expected[:, NUMBERS] if classes == "imagenet" else expected
    )
    assert PretrainedTeacher("shufflenet_v2_x0_5", SPACE, 3, path, **options).image_size == (
        224 if outputs == 1000 else None
    )
    with pytest.raises(DataError, match=f"teacher.classes: .* know {outputs} classes"):
        other = {"imagenet": "dataset", "dataset": "imagenet"}[classes]
        PretrainedTeacher("shufflenet_v2_x0_5", SPACE, 3, path, "torchvision", other)


def test_torchvision_names_the_file_it_publishes_and_the_models_it_has():
    with pytest.raises(DataError) as caught:
        PretrainedTeacher("resnet18", SPACE, 3, library="torchvision")
    two_lines(caught, "teacher.path", "resnet18-f37072fd.pth", "paths.models")
    with pytest.raises(
        ConfigError, match="teacher.model: 'resnet_18'.*\n.*did you mean 'resnet18'"
    ):
        PretrainedTeacher("resnet_18", SPACE, 3, library="torchvision")


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_pickle_is_not_run(library, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"fc.weight": _Harm(tmp_path / "harm")}, protocol=2))
    with pytest.raises(DataError) as caught:
        PretrainedTeacher("resnet18", SPACE, 3, str(path), library)
    two_lines(caught, f"teacher.path: {path} is no file of weights")
    assert not (tmp_path / "harm").exists()


def test_weights_that_cannot_be_had_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(DataError) as caught:
        PretrainedTeacher("resnet18.tv_in1k", SPACE, 3)
    two_lines(caught, "teacher.path", "timm/resnet18.tv_in1k", "model.safetensors")
    with pytest.raises(DataError, match="teacher.path: there is no file"):
        PretrainedTeacher("resnet18", SPACE, 3, str(tmp_path / "none.safetensors"))
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(DataError, match="holds no tensors"):
        PretrainedTeacher("resnet18", SPACE, 3, str(tmp_path / "empty.safetensors"))
    for model in ("resnet18.tv_in2k", "resnet18x"):
        with pytest.raises(
            ConfigError, match=f"teacher.model: timm has no '{model}'\n.*did you mean 'resnet18"
        ):
            PretrainedTeacher(model, SPACE, 3)


# --- configurations ---------------------------------------------------------------------------

FILES = list(files("teacher"))


@pytest.mark.parametrize("name", FILES)
def test_every_configuration_composes_and_names_weights_that_exist(name):
    teacher = choice("teacher", name)
    assert teacher["name"] == name
    if "model" in teacher:
        config = timm.get_pretrained_cfg(teacher["model"])
        assert config.hf_hub_id and config.num_classes == 1000 and teacher["classes"] == "imagenet"
    if name == "cifar10_resnets":
        assert {member: conf["depth"] for member, conf in teacher["members"].items()} == {
            "resnet20": 20,
            "resnet32": 32,
            "resnet56": 56,
        }
        assert {conf["_target_"] for conf in teacher["members"].values()} == {
            "ddoq.labelers.CIFARResNet"
        }


# --- trial ------------------------------------------------------------------------------------


def answers(
    labels: torch.Tensor, num_classes: int, right: float, order: list[int] | None = None
) -> torch.Tensor:
    """Return logits that are right on a share of the images, their outputs in another order."""
    random = torch.Generator().manual_seed(0)
    guess = torch.randint(num_classes, labels.shape, generator=random)
    answer = torch.where(torch.rand(len(labels), generator=random) < right, labels, guess)
    logits = nn.functional.one_hot(answer, num_classes).float()
    return logits if order is None else logits[:, order]


def test_a_good_teacher_passes_with_its_accuracy():
    logits = torch.tensor(
        [[3.0, 1.0, 0.0, 0.0], [0.0, 2.0, 1.0, 0.0], [0.0, 0.0, 1.0, 5.0], [9.0, 0.0, 0.0, 8.0]]
    )
    labels = torch.tensor([0, 1, 2, 0]).repeat(5)
    facts = examine(logits.repeat(5, 1), labels, "t", list("abcd"))
    assert (facts["top1"], facts["num_images"]) == (0.75, 20)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_single_broken_output_is_found(value):
    labels = torch.arange(40) % 10
    logits = answers(labels, 10, 1.0)
    logits[3, 7] = value
    with pytest.raises(StageError) as caught:
        examine(logits, labels, "mine", NAMES)
    two_lines(caught, "teacher", "mine", "NaN or infinite outputs for 1 of 40")


def test_outputs_have_to_be_as_many_as_the_classes():
    with pytest.raises(StageError) as caught:
        examine(torch.zeros(40, 1000), torch.arange(40) % 10, "mine", NAMES)
    two_lines(caught, "[40, 1000]", "10 classes", "teacher.classes")


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_a_permuted_label_order_is_told_from_chance_with_an_example(num_classes):
    names, labels = NAMES[:num_classes], torch.arange(400) % num_classes
    order = [*range(1, num_classes), 0]  # output c holds what belongs to class c + 1
    with pytest.raises(StageError) as caught:
        examine(answers(labels, num_classes, 0.9, order), labels, "mine", names)
    two_lines(caught, "permuted", "outputs of class '", "' fit images of class '")
    said = str(caught.value).split("outputs of class ")[1].split("'")
    assert (names.index(said[1]) + 1) % num_classes == names.index(said[3])


@pytest.mark.parametrize(
    ("num_classes", "num"), [(2, 400), (3, 300), (10, 400), (1000, 1000), (200, 600)]
)
def test_a_teacher_that_guesses_is_near_chance_and_not_permuted(num_classes, num):
    """With many classes and few images some relabelling always fits the images
    that it was chosen on.
    """
    labels, names = torch.arange(num) % num_classes, [str(c) for c in range(num_classes)]
    for logits in (answers(labels, num_classes, 0.0), torch.zeros(num, num_classes)):
        with pytest.raises(StageError) as caught:
            examine(logits, labels, "mine", names)
        two_lines(caught, "near chance", f"of {num} real images")


def test_a_lucky_guess_among_many_classes_is_no_knowledge():
    """Two of 1,000 images are twice chance,
    and a teacher that guesses gets them every fourth time.
    """
    labels = torch.arange(1000)
    logits = torch.zeros(1000, 1000)
    logits[labels, labels.roll(1)] = 1
    logits[:2, :2] = 2 * torch.eye(2)
    with pytest.raises(StageError, match="0.2% of 1000"):
        examine(logits, labels, "lucky", [str(c) for c in range(1000)])


def test_twice_chance_is_asked_for_only_where_it_can_be_had():
    labels = torch.arange(300) % 3
    assert examine(answers(labels, 3, 0.3), labels, "weak", list("abc"))["top1"] < 2 / 3
    labels = torch.arange(400) % 10
    # Significantly better than chance, and yet no teacher.
    with pytest.raises(StageError, match="near chance"):
        examine(answers(labels, 10, 0.07), labels, "weak", NAMES)


def test_a_permuted_real_teacher_is_found_out(photographs):
    teacher = CIFARResNet(str(SHARED / "cifar10_resnets" / "resnet20.npz"), 10)
    logits = teacher(photographs[0])
    with pytest.raises(StageError, match="permuted"):
        examine(logits[:, torch.arange(10).roll(3)], photographs[1], "resnet20", NAMES)
    with pytest.raises(StageError, match="near chance"):
        examine(
            logits,
            photographs[1][torch.randperm(200, generator=torch.Generator().manual_seed(0))],
            "x",
            NAMES,
        )
