"""Latents to measure on: real ones where ../shared/data has them,
and a synthetic field anywhere.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from scipy.fft import idctn

from ddoq.data.images import to_unit
from ddoq.encoders import TAEF2

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
CACHE = Path(__file__).resolve().parents[2] / "outputs" / "benchmarks" / "latents"


@torch.inference_mode()
def imagenette(label: int) -> np.ndarray:
    """Return the tiny VAE's latents of a class of ImageNette at 128 px,
    ``[n, 8192]`` float32; encoded once.
    """
    path = CACHE / f"imagenette-{label}.npy"
    if not path.exists():
        encoder = TAEF2(str(SHARED / "vae_taef2"))
        tables = [
            pq.read_table(file)
            for file in sorted((SHARED / "imagenette128").glob("train*.parquet"))
        ]
        rows = [
            row["image"]["bytes"]
            for table in tables
            for row in table.to_pylist()
            if row["label"] == label
        ]
        images = [np.asarray(Image.open(io.BytesIO(row)).convert("RGB")) for row in rows]
        parts = []
        for start in range(0, len(images), 64):
            batch = torch.from_numpy(np.stack(images[start : start + 64])).permute(0, 3, 1, 2)
            parts.append(encoder.encode(to_unit(batch)).flatten(1).numpy())
        CACHE.mkdir(parents=True, exist_ok=True)
        np.save(path, np.concatenate(parts))
    return np.load(path)


def fashion_mnist(label: int | None = None) -> np.ndarray:
    """Return the pixels of a class of Fashion-MNIST in [0, 1], ``[6000, 784]``, or of all classes,
    ``[60000, 784]``.
    """
    folder = SHARED / "fashion_mnist"
    pixels = np.frombuffer(
        gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
    )
    labels = np.frombuffer(
        gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8
    )
    images = pixels.reshape(-1, 784).astype(np.float32) / 255
    return images if label is None else images[labels == label]


def cifar10(label: int) -> np.ndarray:
    """Return the pixels of a class of CIFAR-10 (JPEG form) in [0, 1], ``[5000, 3072]``."""
    tables = [
        pq.read_table(file) for file in sorted((SHARED / "cifar10_jpeg").rglob("*train*.parquet"))
    ]
    rows = [
        row["image"]["bytes"]
        for table in tables
        for row in table.to_pylist()
        if row["label"] == label
    ]
    return np.stack(
        [np.asarray(Image.open(io.BytesIO(row)).convert("RGB")).reshape(-1) for row in rows]
    ) / np.float32(255)


def synthetic(num: int, side: int, seed: int) -> np.ndarray:
    """Return ``[num, 4 side^2]`` latents: fields of power-law spectrum around 25 modes,
    and a white floor.

    The floor has the same share of the variance at every size.
    """
    rng = np.random.default_rng(seed)
    frequency = np.add.outer(np.arange(side) ** 2, np.arange(side) ** 2)
    amplitude = (1 + frequency) ** -0.75
    modes = 0.68 * rng.normal(size=(25, 4, side, side)) * amplitude
    scales = np.exp(0.5 * rng.normal(size=25))
    shares = 1 / np.arange(1, 26)
    mode = rng.choice(25, num, p=shares / shares.sum())
    fields = (
        modes[mode]
        + scales[mode][:, None, None, None] * rng.normal(size=(num, 4, side, side)) * amplitude
    )
    floor = 1.28 / side * rng.normal(size=(num, 4, side, side))
    return (idctn(fields, axes=(2, 3), norm="ortho") + floor).reshape(num, -1).astype(np.float32)
