"""probe: whether networks work in the precision that is asked for, on a few real images, before they are used.

Nothing is made of it: a precision is part of the key of what is computed with it, and never changed on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from ddoq.errors import StageError
from ddoq.pipeline.graph import Node
from ddoq.stages.encode import load_encoder
from ddoq.stages.generate import load_pretrained_generator
from ddoq.stages.runtime import Runtime, facts
from ddoq.utils.console import console

if TYPE_CHECKING:
    import torch

    from ddoq.generators import LatentDiffusion
    from ddoq.stages.graph import Experiment

VERSION = 1
_NUM_IMAGES, _NUM_DENOISED = 16, 4
_OTHERS = ("bfloat16", "float32")  # what is tried where a precision fails, in this order
#: How far from float32, in dB, images and outputs may be. In bfloat16 six autoencoders are 43 to 60 dB off, in float16
#: 61 to 88; their own errors are 22 to 28 dB. For outputs of denoisers the bound is a guess: a tenth of their own size.
_IMAGES_DB, _OUTPUTS_DB = 35.0, 20.0
#: What a generator's network does not depend on: arms that differ in it share a probe.
_OF_SAMPLING = ("strength", "guidance_scale", "num_steps", "start", "mode_guidance", "mode_stop", "guidance_channels")


def probes(experiment: Experiment) -> list[Node]:
    """Return the nodes of an experiment's probes: of its encoder, if that is a network, and its pretrained generators.

    A DiT that ddoq fits there is only after the latents: ``generate`` tries it.
    """
    encoder, shared = experiment.encoder_identity(), {"index": experiment.index}
    if experiment.encoder is not None:
        shared["encoder"] = experiment.encoder
    found = {}
    if experiment.config["encoder"]["_target_"] != "ddoq.encoders.Pixels":
        found["encoder"] = Node("probe", VERSION, encoder, shared, encoder["encoder"]["name"])
    for entry in experiment.entries:
        identity = entry.generate.identity if entry.generate else {}
        if identity.get("model"):
            conf = {key: value for key, value in identity["generator"].items() if key not in _OF_SAMPLING}
            tried = {**encoder, "generator": conf, "model": identity["model"]}
            node = Node("probe", VERSION, tried, shared, conf["name"])
            found.setdefault(node.key, node)
    return list(found.values())


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write nothing but facts: the precision, the device, and how far the results in it are from those in float32
    (``agreement_db``; ``None`` in float32); of an encoder also ``psnr_db``, the error of its round trip, and
    ``constant_db``, that of the best single colour.

    Raises:
        StageError: images or outputs are not finite, or far from those in float32; the remedy names a precision that
            was tried and works.
    """
    return (_generator if "generator" in node.identity else _encoder)(node, inputs, runtime)


# --- encoders --------------------------------------------------------------------------------------------------------


def _encoder(node: Node, inputs: Mapping[str, Path], runtime: Runtime) -> dict:
    conf, (images, _) = node.identity["encoder"], _real_images(inputs["index"], runtime, _NUM_IMAGES)
    spread: dict[str, float] = {}

    def reconstruct(**change: str) -> torch.Tensor:
        latents, pictures = _round_trip(node.identity | {"encoder": conf | change}, inputs, runtime, images)
        spread.setdefault("latent_std", latents.std().item())  # of the first ones, which are those that are asked for
        return pictures

    precision = conf.get("precision", "float32")
    asked = reconstruct()
    exact = asked if precision == "float32" else reconstruct(precision="float32")
    found = _compared(asked, exact, _decibels, precision, runtime) | {"num_images": len(images)}
    if not _works(asked, exact, _decibels, _IMAGES_DB):
        remedies = {f"encoder.precision={other}": {"precision": other} for other in _OTHERS if other != precision}
        if precision == "float32":
            remedies = {"encoder.storage=float32": {"storage": "float32"}} if conf["storage"] == "float16" else {}
        good = (key for key, change in remedies.items() if _finite(reconstruct(**change)))
        _refuse("encoder", node.title, precision, asked, found["agreement_db"], next(good, None))
    constant = images.mean((0, 2, 3), keepdim=True).expand_as(images)
    found |= spread | {"psnr_db": _decibels(asked, images), "constant_db": _decibels(constant, images)}
    _announce(node, found)
    return found


def _round_trip(identity: Mapping, inputs: Mapping[str, Path], runtime: Runtime, images: torch.Tensor) -> tuple:
    """Return latents, as they are stored, and images, as they are decoded from these, both float32 on the CPU."""
    import torch

    from ddoq.data.images import with_channels
    from ddoq.engine.memory import FittingBatches
    from ddoq.utils.handover import Handover

    encoder, fitting = load_encoder(identity, inputs, runtime).to(runtime.device), FittingBatches("probe")
    seeds, latents = list(range(len(images))), []

    def there_and_back(rows: slice) -> torch.Tensor:
        stored = encoder.encode(images[rows].to(runtime.device), seeds[rows]).to(encoder.storage).float()
        latents.append(stored.cpu())
        return with_channels(encoder.decode(stored).float().cpu(), images.shape[1])

    with torch.inference_mode():
        fitting.largest = _NUM_DENOISED
        pictures = fitting(len(images), there_and_back)
    shapes = Handover("encoder", "images come back", "set dataset.image_size to a multiple of the encoder's factor")
    shapes.shape(pictures.shape[-2:], images.shape[-2:])
    return torch.cat(latents), pictures


def _announce(node: Node, found: Mapping) -> None:
    """Say how well an encoder reconstructs; a network that knows nothing of images is worse than one colour."""
    error, num = f"{found['psnr_db']:.1f} dB", found["num_images"]
    console.print(f"  encoder: {error} on {num} real images, {found['precision']}", soft_wrap=True)
    if found["psnr_db"] < found["constant_db"]:
        fix = "raise encoder.fit.num_steps" if "encoder" in node.inputs else "check encoder.path"
        console.print(
            f"[yellow]encoder: {escape(node.title)} gives {num} real images back with {error}, where one constant "
            f"colour has {found['constant_db']:.1f} dB: it is no autoencoder of such images; {fix}[/]",
            soft_wrap=True,
        )


# --- generators ------------------------------------------------------------------------------------------------------


def _generator(node: Node, inputs: Mapping[str, Path], runtime: Runtime) -> dict:
    conf, index = node.identity["generator"], facts(inputs["index"])
    images, labels = _real_images(inputs["index"], runtime, _NUM_DENOISED)
    latents, _ = _round_trip(node.identity, inputs, runtime, images)
    path = runtime.models.place(node.identity["model"], conf)

    def make(precision: str) -> LatentDiffusion:
        return load_pretrained_generator(conf | {"precision": precision}, path, None, index)

    return require_precision(make, conf["precision"], latents, labels, runtime)


def require_precision(
    make: Callable[[str], LatentDiffusion],
    precision: str,
    latents: torch.Tensor,
    labels: torch.Tensor,
    runtime: Runtime,
) -> dict:
    """Return the facts of a generator's probe: one step at its noisiest and one at its least noisy time.

    Args:
        make: returns the generator in a precision.
        precision: that is asked for.
        latents: ``[n, C, H, W]``.
        labels: ``[n]``.
        runtime: for the device.

    Raises:
        StageError: as for ``run``.
    """
    import torch

    def outputs(other: str) -> torch.Tensor:
        generator = make(other)
        generator.networks().to(runtime.device)
        with torch.inference_mode():
            return torch.cat(list(_denoised(generator, latents.to(runtime.device), labels.to(runtime.device))))

    asked = outputs(precision)
    exact = asked if precision == "float32" else outputs("float32")
    found = _compared(asked, exact, _signal_to_noise, precision, runtime) | {"num_images": len(latents)}
    if not _works(asked, exact, _signal_to_noise, _OUTPUTS_DB):
        good = (f"generator.precision={other}" for other in _OTHERS if other != precision and _finite(outputs(other)))
        _refuse("generator", "its network", precision, asked, found["agreement_db"], next(good, None))
    return found


def _denoised(generator: LatentDiffusion, latents: torch.Tensor, labels: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the network's outputs, float32 on the CPU, at both ends of its schedule of noise."""
    import torch

    denoise, alphas = generator.denoiser(labels, 1.0), generator.schedule.alphas_cumprod
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents.device)
    for time in (len(alphas) - 1, 0):
        signal, spread = float(alphas[time]) ** 0.5, (1 - float(alphas[time])) ** 0.5
        yield denoise(signal * latents + spread * noise, torch.tensor(time, device=latents.device)).cpu()


# --- what both share -------------------------------------------------------------------------------------------------


def _real_images(index: Path, runtime: Runtime, num: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return training images in [-1, 1], spread over the classes, and their labels."""
    import numpy as np
    import torch

    from ddoq.data.images import to_unit

    images = runtime.images(index, "train")
    by_class = np.argsort(images.labels, kind="stable")
    chosen = by_class[np.unique(np.linspace(0, len(images) - 1, num).astype(int))]
    pixels = torch.stack([images[int(i)][1] for i in chosen])
    return to_unit(pixels), torch.from_numpy(images.labels[chosen])


def _compared(asked: torch.Tensor, exact: torch.Tensor, agreement: Callable, precision: str, runtime: Runtime) -> dict:
    """Return the facts of every probe: what was tried, where, and how far it is from float32."""
    return {
        "precision": precision,
        "device": runtime.device.split(":")[0],
        "agreement_db": None if exact is asked else agreement(asked, exact),
    }


def _finite(values: torch.Tensor) -> bool:
    return bool(values.isfinite().all())


def _works(asked: torch.Tensor, exact: torch.Tensor, agreement: Callable, least: float) -> bool:
    return _finite(asked) and _finite(exact) and (asked is exact or agreement(asked, exact) >= least)


def _decibels(images: torch.Tensor, others: torch.Tensor) -> float:
    """Return the peak signal-to-noise ratio of images in [-1, 1], at most 100 dB."""
    return _ratio(4.0, (images.clamp(-1, 1) - others.clamp(-1, 1)).double().square().mean().item())


def _signal_to_noise(outputs: torch.Tensor, exact: torch.Tensor) -> float:
    exact = exact.double()
    return _ratio(exact.square().mean().item(), (outputs - exact).square().mean().item())


def _ratio(signal: float, error: float) -> float:
    return round(10 * math.log10(max(signal / max(error, 1e-10 * signal, 1e-30), 1e-10)), 2)


def _refuse(
    part: str, name: str, precision: str, asked: torch.Tensor, agreement: float | None, remedy: str | None
) -> None:
    broken = int((~asked.isfinite()).flatten(1).any(1).sum())
    key = f"{part}.path" if precision == "float32" else f"{part}.precision"
    what = f"{broken} of {len(asked)} outputs of {name} for real images are NaN or infinite"
    if not broken:
        what = f"outputs of {name} for real images are {agreement:.1f} dB from those in float32, which is far"
    weights = f"replace the weights in {part}.path; where they were fitted here, lower {part}.fit.learning_rate"
    raise StageError(f"{key}: in {precision}, {what}", f"set {remedy}" if remedy else weights)
