"""Whether a network works in the precision that is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from ddoq.errors import StageError
from ddoq.generators import LatentDiffusion
from ddoq.stages.runtime import Runtime

OTHERS = ("bfloat16", "float32")  # what is tried where a precision fails, in this order
#: How far from float32, in dB, the outputs of a denoiser may be.
#: The bound is a guess: a tenth of their own size.
_OUTPUTS_DB = 20.0


def require_precision(
    make: Callable[[str], LatentDiffusion],
    precision: str,
    latents: torch.Tensor,
    labels: torch.Tensor,
    runtime: Runtime,
) -> dict:
    """Return the facts of a generator's probe:
    one step at its noisiest and one at its least noisy time.

    Args:
        make: returns the generator in a precision.
        precision: that is asked for.
        latents: ``[n, C, H, W]``.
        labels: ``[n]``.
        runtime: for the device.

    Raises:
        StageError: as for ``run``.
    """

    def outputs(other: str) -> torch.Tensor:
        generator = make(other)
        generator.networks().to(runtime.device)
        with torch.inference_mode():
            return torch.cat(
                list(_denoised(generator, latents.to(runtime.device), labels.to(runtime.device)))
            )

    asked = outputs(precision)
    exact = asked if precision == "float32" else outputs("float32")
    facts = compared(asked, exact, _signal_to_noise, precision, runtime) | {
        "num_images": len(latents)
    }
    if not works(asked, exact, _signal_to_noise, _OUTPUTS_DB):
        good = (
            f"generator.precision={other}"
            for other in OTHERS
            if other != precision and is_finite(outputs(other))
        )
        refuse(
            "generator", "its network", precision, asked, facts["agreement_db"], next(good, None)
        )
    return facts


def _denoised(
    generator: LatentDiffusion, latents: torch.Tensor, labels: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Yield the network's outputs, float32 on the CPU, at both ends of its schedule of noise."""
    denoise, alphas = generator.denoiser(labels, 1.0), generator.schedule.alphas_cumprod
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(
        latents.device
    )
    for time in (len(alphas) - 1, 0):
        signal, spread = float(alphas[time]) ** 0.5, (1 - float(alphas[time])) ** 0.5
        yield denoise(
            signal * latents + spread * noise, torch.tensor(time, device=latents.device)
        ).cpu()


def compared(
    asked: torch.Tensor, exact: torch.Tensor, agreement: Callable, precision: str, runtime: Runtime
) -> dict:
    """Return the facts of every probe: what was tried, where, and how far it is from float32."""
    return {
        "precision": precision,
        "device": runtime.device.split(":")[0],
        "agreement_db": None if exact is asked else agreement(asked, exact),
    }


def is_finite(values: torch.Tensor) -> bool:
    return bool(values.isfinite().all())


def works(asked: torch.Tensor, exact: torch.Tensor, agreement: Callable, least: float) -> bool:
    return (
        is_finite(asked)
        and is_finite(exact)
        and (asked is exact or agreement(asked, exact) >= least)
    )


def _signal_to_noise(outputs: torch.Tensor, exact: torch.Tensor) -> float:
    exact = exact.double()
    return ratio(exact.square().mean().item(), (outputs - exact).square().mean().item())


def ratio(signal: float, error: float) -> float:
    return round(10 * math.log10(max(signal / max(error, 1e-10 * signal, 1e-30), 1e-10)), 2)


def refuse(
    part: str,
    name: str,
    precision: str,
    asked: torch.Tensor,
    agreement: float | None,
    remedy: str | None,
) -> None:
    """Raise StageError for outputs of a network that are broken, or far from those in float32.

    Args:
        part: of the configuration, ``encoder`` or ``generator``.
        name: of the network.
        precision: that was asked for.
        asked: its outputs, ``[n, ...]``.
        agreement: with float32, in dB; ``None`` where nothing can be compared.
        remedy: an override that was tried and works, if there is one.
    """
    broken = int((~asked.isfinite()).flatten(1).any(1).sum())
    key = f"{part}.path" if precision == "float32" else f"{part}.precision"
    what = f"{broken} of {len(asked)} outputs of {name} for real images are NaN or infinite"
    if not broken:
        what = (
            f"outputs of {name} for real images are {agreement:.1f} dB from those in float32, "
            "which is far"
        )
    weights = (
        f"replace the weights in {part}.path; "
        f"where they were fitted here, lower {part}.fit.learning_rate"
    )
    raise StageError(f"{key}: in {precision}, {what}", f"set {remedy}" if remedy else weights)
