"""A tiny twin of every ImageNet experiment:
the same classes and code, random weights, images of noise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ddoq.data.catalogue import CATALOGUE
from support.tiny_models import save_dit, save_stable_diffusion, save_vae

EXPERIMENTS = (
    "imagenette_dit",
    "imagewoof_dit",
    "imagenette_sd",
    "imagenet100_dit",
    "imagenet1k_dit",
    "imagenet1k_sd",
)


def save_models(folder: Path) -> Path:
    """Save what the experiments load, where ``paths.models`` has it."""
    save_vae(folder / "stabilityai" / "sd-vae-ft-ema")
    save_dit(folder / "facebook" / "DiT-XL-2-256")
    save_stable_diffusion(folder / "stable-diffusion-v1-5" / "stable-diffusion-v1-5")
    return folder


def save_images(folder: Path, wnids: list[str], num_train: int = 8, num_test: int = 2) -> Path:
    """Save class folders as those of ILSVRC2012, of small noisy JPEGs that are not square."""
    random = np.random.default_rng(0)
    for split, num in (("train", num_train), ("val", num_test)):
        for wnid in wnids:
            place = folder / split / wnid
            place.mkdir(parents=True)
            for i in range(num):
                pixels = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((96, 72)).save(place / f"{wnid}_{i}.JPEG")
    return folder


def overrides(experiment: str, models: Path, images: Path, outputs: Path) -> list[str]:
    """Return what shrinks an experiment to seconds."""
    return [
        f"+experiment={experiment}",
        f"paths.models={models}",
        f"paths.outputs={outputs}",
        f"dataset.root={images}",
        "dataset.image_size=64",
        "ipc=2",
        "generator.num_steps=4",
        "generator.precision=float32",
        "encoder.precision=float32",
        "quantizer.num_restarts=1",
        "measure.num_folds=0",
        "measure.curve=[]",
        "student=convnet_d3",
        "student.width=8",
        "protocol.image_size=32",
        "protocol.epochs=1",
        "protocol.rules=[]",
        "protocol.labels=hard",
        "protocol.num_evaluations=1",
        "protocol.num_seeds=2",
        "protocol.redraw=false",
        "ablation=none",
        "dataset.validation_fraction=0",
        "trainer.accelerator=cpu",
    ]


def wnids_of(experiment: str) -> list[str]:
    """Return the classes of an experiment."""
    return CATALOGUE[experiment.rsplit("_", 1)[0]].wnids
