"""Three lines in a notebook: from a folder of images to a weighted data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from sklearn.datasets import load_digits

import ddoq
from ddoq.config.choices import conf_dir
from ddoq.errors import DdoqError

#: No teacher is fitted, and pictures stay as small as they are.
SMALL = ("space=latents", "dataset.image_size=8", "dataset.channels=1", "run.quiet=true")
NUM_CLASSES = 3


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Twenty digits of each of three classes, in a folder whose name Hydra's grammar trips over."""
    root = tmp_path_factory.mktemp("notebook") / "my photos, (2026)"
    digits = load_digits()
    for label in range(NUM_CLASSES):
        folder = root / f"digit {label}"
        folder.mkdir(parents=True)
        for number, pixels in enumerate(digits.images[digits.target == label][:20]):
            Image.fromarray((pixels * 15).astype(np.uint8)).save(folder / f"{number}.png")
    return root


def test_a_folder_becomes_weighted_images_and_a_second_call_computes_nothing(photos, tmp_path):
    data = ddoq.distill(photos, *SMALL, ipc=2, outputs=tmp_path / "out")
    assert len(data) == 2 * NUM_CLASSES
    assert data.class_names == [f"digit {label}" for label in range(NUM_CLASSES)]
    originals = {
        (label, np.asarray(Image.open(file)).tobytes())
        for label in range(NUM_CLASSES)
        for file in (photos / f"digit {label}").iterdir()
    }
    for image, label, weight in data:
        pixels = (image[0] * 255).round().byte().numpy()
        assert (label, pixels.tobytes()) in originals  # photos as they are
        assert weight > 0
    assert data.weights.reshape(NUM_CLASSES, 2).mean(1).tolist() == pytest.approx([1] * 3)
    before = {path: path.stat().st_mtime_ns for path in data.path.rglob("*")}
    again = ddoq.distill(photos, *SMALL, ipc=2, outputs=tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in again.path.rglob("*")} == before


def test_errors_are_ours_and_an_application_of_hydras_stays_as_it_was(tmp_path):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        of_the_caller = GlobalHydra.instance().hydra
        with pytest.raises(DdoqError, match=r"dataset.root: .* is not a folder"):
            ddoq.distill(tmp_path / "nowhere", *SMALL, outputs=tmp_path)
        with pytest.raises(DdoqError, match=r"(?s)quantizr.*quantizer"):
            ddoq.distill(tmp_path, "quantizr=kmeans", outputs=tmp_path)
        assert GlobalHydra.instance().hydra is of_the_caller
