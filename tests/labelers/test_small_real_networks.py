"""EfficientNet-Lite0 and TAESD: real networks small enough for a CPU, by name in ``conf/``."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from ddoq.config.build import build
from ddoq.config.checks import check
from ddoq.data.label_space import LabelSpace
from ddoq.errors import DataError
from ddoq.experiment import Models
from ddoq.experiment.compatible import remarks
from ddoq.experiment.teachers import seen_test_images
from ddoq.labelers import PretrainedTeacher
from support.runs import SHARED, choice, composed

#: The classes of ImageNette in the order of their WordNet ids.
WNIDS = [
    *("n01440764", "n02102040", "n02979186", "n03000684", "n03028079"),
    *("n03394916", "n03417042", "n03425413", "n03445777", "n03888257"),
]
LITE = "tf_efficientnet_lite0"


def located(group: str, name: str) -> dict:
    """Return a choice with the file or folder that it names, or skip the test."""
    conf = choice(group, name)
    place = SHARED / conf["path"]
    if not place.exists():
        pytest.skip(f"needs {place}")
    return conf | {"path": str(place)}


@pytest.fixture(scope="module")
def photographs() -> tuple[torch.Tensor, torch.Tensor]:
    """A hundred test images of ImageNette at 128 pixels, in [0, 1], with their labels."""
    files = sorted((SHARED / "imagenette128").glob("*.parquet"))
    tests = [file for file in files if "train" not in file.name]
    if not tests:
        pytest.skip(f"needs {SHARED / 'imagenette128'}")
    table = pq.read_table(tests[0])
    table = table.take(list(range(0, len(table), len(table) // 100)))
    pixels = [
        np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB"))
        for row in table["image"].to_pylist()
    ]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    return images, torch.tensor(table["label"].to_pylist())


def test_the_teacher_knows_photographs_by_wordnet_ids(photographs):
    images, labels = photographs
    conf = located("teacher", "efficientnet_lite0")
    teacher = build(conf, num_classes=10, label_space=LabelSpace.from_classes(WNIDS))
    assert teacher.image_size == 224 and teacher.mean.flatten().tolist() == [0.5] * 3
    assert (teacher(images).argmax(1) == labels).double().mean() > 0.9


def test_its_features_are_those_of_the_teacher_in_the_same_images(photographs):
    images = torch.nn.functional.interpolate(photographs[0][:4], 224)
    space = build(
        {k: v for k, v in located("space", "efficientnet_lite0").items() if k != "representative"}
    )
    conf = located("teacher", "efficientnet_lite0")
    teacher = build(conf, num_classes=10, label_space=LabelSpace.from_classes(WNIDS))
    torch.testing.assert_close(
        space.encode(2 * images - 1), teacher.features(images), rtol=1e-3, atol=1e-3
    )


def test_names_of_the_wheel_s_file_are_translated(tmp_path):
    network = timm.create_model(LITE).eval()
    stored = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    renamed = {f"_layer{number:03}": tensor for number, tensor in enumerate(stored.values())}
    renamed = {"_conv_stem.weight": renamed.pop("_layer000")} | renamed
    renamed["_layer001.num_batches_tracked"] = torch.tensor(5)  # wherever there is batch norm
    path = str(tmp_path / "efficientnet-lite0.pth")
    torch.save(renamed, path)
    space = LabelSpace.from_classes(WNIDS)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours = PretrainedTeacher(LITE, space, 10, path, image_size=64)
    save_file(stored, tmp_path / "timm.safetensors")
    theirs = PretrainedTeacher(LITE, space, 10, str(tmp_path / "timm.safetensors"), image_size=64)
    assert torch.equal(ours(images), theirs(images))
    with pytest.raises(DataError, match="another EfficientNet than teacher.model=tf_efficientnet"):
        PretrainedTeacher("tf_efficientnet_lite1", space, 10, path)


def test_taesd_has_stable_diffusion_s_latents_and_comes_back(photographs):
    encoder = build({k: v for k, v in located("encoder", "taesd").items() if k != "fit"}).eval()
    images = 2 * photographs[0][:20] - 1
    with torch.no_grad():
        latents = encoder.encode(images)
        back = encoder.decode(latents).clamp(-1, 1)
    assert latents.shape == (20, 4, 16, 16)
    assert 0.5 < latents.std() < 1.1, "of about unit variance, without another factor"
    error = (images - back).square().mean((1, 2, 3)) / 4
    assert (-10 * error.log10()).mean() > 20


def test_it_is_said_where_a_network_has_seen_the_test_images():
    lite = "teacher=efficientnet_lite0"
    soft = composed("+experiment=imagenette128", lite, "protocol.labels=soft")
    words = "tf_efficientnet_lite0: trained on ImageNet, fastai's test images among them"
    assert seen_test_images(soft).startswith(words)
    assert any(line.startswith(words) for line in remarks(soft, Models([])))
    own = composed(
        "+experiment=imagenette128", lite, "teacher.classes=dataset", "protocol.labels=soft"
    )
    assert seen_test_images(own) is None, "its outputs are the data set's: trained on it"
    hard = composed("+experiment=imagenette128", lite, "space=latents", "baselines=none")
    assert seen_test_images(hard) is None
    chosen = composed(
        *("+experiment=imagenette128", "+space@measure.space=efficientnet_lite0"),
        *("measure.fidelity=true",),
    )
    check(chosen)
    assert seen_test_images(chosen).startswith(words)
    other = composed("+experiment=imagenette128", lite, "dataset=imagenette")
    assert seen_test_images(other) is None
    assert Path(choice("teacher", "efficientnet_lite0")["path"]).name.startswith(LITE)
