"""probe: whether networks work in the precision that is asked for, on a few real images,
before they are used.

Nothing is made of it: a precision is part of the key of what is computed with it,
and never changed on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from rich.markup import escape

from ddoq.data.images import to_unit, with_channels
from ddoq.engine.memory import FittingBatches
from ddoq.generators import LatentDiffusion
from ddoq.pipeline.graph import Node
from ddoq.stages.models import load_encoder, load_pretrained_generator
from ddoq.stages.precision import (
    OTHERS,
    compared,
    is_finite,
    ratio,
    refuse,
    require_precision,
    works,
)
from ddoq.stages.runtime import Runtime, index_facts
from ddoq.utils.console import console
from ddoq.utils.handover import Handover

_NUM_IMAGES, _NUM_DENOISED = 16, 4
#: How far from float32, in dB, images may be. In bfloat16 six autoencoders are 43 to 60 dB off, in
#: float16 61 to 88; their own errors are 22 to 28 dB.
_IMAGES_DB = 35.0


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write nothing but facts: the precision, the device, and how far the results in it are from
    those in float32 (``agreement_db``; ``None`` in float32); of an encoder also ``psnr_db``, the
    error of its round trip, and ``constant_db``, that of the best single colour.

    Raises:
        StageError: images or outputs are not finite, or far from those in float32; the remedy names
            a precision that was tried and works.
    """
    return (_generator if "generator" in node.identity else _encoder)(node, inputs, runtime)


# --- encoders ---------------------------------------------------------------------------------


def _encoder(node: Node, inputs: Mapping[str, Path], runtime: Runtime) -> dict:
    conf = node.identity["encoder"]
    images, _ = _real_images(inputs["index"], runtime, _NUM_IMAGES)
    spread: dict[str, float] = {}

    def reconstruct(**change: str) -> torch.Tensor:
        latents, pictures = _round_trip(
            node.identity | {"encoder": conf | change}, inputs, runtime, images
        )
        # Kept of the first ones, which are those that are asked for.
        spread.setdefault("latent_std", latents.std().item())
        return pictures

    precision = conf.get("precision", "float32")
    asked = reconstruct()
    exact = asked if precision == "float32" else reconstruct(precision="float32")
    facts = compared(asked, exact, _decibels, precision, runtime) | {"num_images": len(images)}
    if not works(asked, exact, _decibels, _IMAGES_DB):
        remedies = {
            f"encoder.precision={other}": {"precision": other}
            for other in OTHERS
            if other != precision
        }
        if precision == "float32":
            remedies = (
                {"encoder.storage=float32": {"storage": "float32"}}
                if conf["storage"] == "float16"
                else {}
            )
        good = (key for key, change in remedies.items() if is_finite(reconstruct(**change)))
        refuse("encoder", node.title, precision, asked, facts["agreement_db"], next(good, None))
    constant = images.mean((0, 2, 3), keepdim=True).expand_as(images)
    facts |= spread | {
        "psnr_db": _decibels(asked, images),
        "constant_db": _decibels(constant, images),
    }
    _announce(node, facts)
    return facts


def _round_trip(
    identity: Mapping, inputs: Mapping[str, Path], runtime: Runtime, images: torch.Tensor
) -> tuple:
    """Return latents, as they are stored, and images, as they are decoded from these,
    both float32 on the CPU.
    """
    encoder = load_encoder(identity, inputs, runtime).to(runtime.device)
    fitting = FittingBatches("probe")
    seeds, latents = list(range(len(images))), []

    def there_and_back(rows: slice) -> torch.Tensor:
        stored = (
            encoder.encode(images[rows].to(runtime.device), seeds[rows]).to(encoder.storage).float()
        )
        latents.append(stored.cpu())
        return with_channels(encoder.decode(stored).float().cpu(), images.shape[1])

    with torch.inference_mode():
        fitting.largest = _NUM_DENOISED
        pictures = fitting(len(images), there_and_back)
    shapes = Handover(
        "encoder",
        "images come back",
        "set dataset.image_size to a multiple of the encoder's factor",
    )
    shapes.shape(pictures.shape[-2:], images.shape[-2:])
    return torch.cat(latents), pictures


def _announce(node: Node, facts: Mapping) -> None:
    """Say how well an encoder reconstructs;
    a network that knows nothing of images is worse than one colour.
    """
    error, num = f"{facts['psnr_db']:.1f} dB", facts["num_images"]
    console.print(f"  encoder: {error} on {num} real images, {facts['precision']}", soft_wrap=True)
    if facts["psnr_db"] < facts["constant_db"]:
        fix = "raise encoder.fit.num_steps" if "encoder" in node.inputs else "check encoder.path"
        console.print(
            f"[yellow]encoder: {escape(node.title)} gives {num} real images back with {error}, "
            f"where one constant colour has {facts['constant_db']:.1f} dB: "
            f"it is no autoencoder of such images; {fix}[/]",
            soft_wrap=True,
        )


# --- generators -------------------------------------------------------------------------------


def _generator(node: Node, inputs: Mapping[str, Path], runtime: Runtime) -> dict:
    conf, space = node.identity["generator"], index_facts(inputs["index"]).space
    images, labels = _real_images(inputs["index"], runtime, _NUM_DENOISED)
    latents, _ = _round_trip(node.identity, inputs, runtime, images)
    path = runtime.models.place(node.identity["model"], conf)

    def make(precision: str) -> LatentDiffusion:
        return load_pretrained_generator(conf | {"precision": precision}, path, None, space)

    return require_precision(make, conf["precision"], latents, labels, runtime)


# --- images -----------------------------------------------------------------------------------


def _real_images(index: Path, runtime: Runtime, num: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return training images in [-1, 1], spread over the classes, and their labels."""
    images = runtime.images(index, "train")
    by_class = np.argsort(images.labels, kind="stable")
    chosen = by_class[np.unique(np.linspace(0, len(images) - 1, num).astype(int))]
    pixels = torch.stack([images[int(i)][1] for i in chosen])
    return to_unit(pixels), torch.from_numpy(images.labels[chosen])


def _decibels(images: torch.Tensor, others: torch.Tensor) -> float:
    """Return the peak signal-to-noise ratio of images in [-1, 1], at most 100 dB."""
    return ratio(4.0, (images.clamp(-1, 1) - others.clamp(-1, 1)).double().square().mean().item())
