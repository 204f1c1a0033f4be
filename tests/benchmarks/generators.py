"""Generators and VAE against diffusers' stock pipelines:
`make bench-generators`, the full models with DEVICE=cuda.

In each repetition every side runs once, in turn, in one process: the stock pipeline image by image
(D4M), the same on a batch, ours, and ours with levers. Weights, noise, steps, guidance and
scheduler are the same, so images must agree. Wall seconds after a warm-up. Words select: cuda (and
then tiny, for the small models), DiT, SD, encode.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import diffusers
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from ddoq.data.label_space import LabelSpace, imagenet_wnids
from ddoq.encoders import VAE
from ddoq.generators import DiT, LatentDiffusion, Points, StableDiffusion
from ddoq.generators.sampling import times_from
from ddoq.pipeline.provenance import provenance
from ddoq.utils.pretrained import compile_blocks

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from support.tiny_models import save_dit, save_stable_diffusion  # noqa: E402

OUTPUT = ROOT / "outputs" / "benchmarks" / "generators.json"
SPACE = LabelSpace.from_classes(imagenet_wnids()[::16])  # 63 classes
JOBS, REPEATS, FEW = ("DiT", "SD", "encode"), 5, 4  # few images where a side is slow
ONE, BATCH, OURS = "stock, one at a time", "stock, batch", "ours"
#: Largest gap between the images (in [0, 1]) or latents (of unit scale) of sides of one precision:
#: the maximum for float32; the mean for bfloat16, in which the stock pipelines keep the sample
#: itself, where ours keeps it in float32.
TOLERANCE = {"float32": ("max", 1e-3), "bfloat16": ("mean", 0.02)}


@dataclass(frozen=True)
class Setting:
    """Networks (layers, heads, width per head; the VAE's widths, layers, groups) and sizes."""

    dit: tuple[int, int, int]
    text: tuple[int, int, int]
    unet: dict
    vae: tuple[tuple[int, ...], int, int]
    precision: str
    steps: int
    batch: dict[str, int]
    sides: dict[str, int]  # of the latents, or of the images to encode


UNET = {
    "block_out_channels": (32, 64, 128, 128),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 4,
}
TINY = {"DiT": 4, "SD": 4, "encode": 16}, {"DiT": 32, "SD": 32, "encode": 128}
FULL = {"DiT": 64, "SD": 16, "encode": 64}, {"DiT": 32, "SD": 64, "encode": 256}
SETTINGS = {
    "tiny": Setting((6, 6, 32), (4, 4, 16), UNET, ((32, 64, 96), 1, 8), "float32", 5, *TINY),
    # DiT-XL/2 at 256 pixels, Stable Diffusion 1.5 at 512 and its VAE, as they were published
    "full": Setting(
        (28, 16, 72), (12, 12, 64), {}, ((128, 256, 512, 512), 2, 32), "bfloat16", 50, *FULL
    ),
}
#: GFLOP of one call for one image by the published networks; a multiply-add is two.
PUBLISHED = {"dit/transformer": (32, 237.3), "sd/unet": (64, 803.3)}
PUBLISHED |= {"sd/vae encode": (256, 272.7), "sd/vae decode": (32, 622.2)}


def networks(setting: Setting) -> dict[str, Callable[[], nn.Module]]:
    """Return how to make each network, by the place where the published models have it."""
    layers, heads, width = setting.dit
    dit = {
        "num_layers": layers,
        "num_attention_heads": heads,
        "attention_head_dim": width,
        "in_channels": 4,
    }
    dit |= {
        "out_channels": 8,
        "num_embeds_ada_norm": 1000,
        "sample_size": setting.sides["DiT"],
        "patch_size": 2,
    }
    layers, heads, width = setting.text
    text = {"hidden_size": heads * width, "num_hidden_layers": layers, "num_attention_heads": heads}
    text |= {
        "intermediate_size": 4 * heads * width,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    unet = {
        "sample_size": setting.sides["SD"],
        "cross_attention_dim": heads * width,
        **setting.unet,
    }
    widths, layers, groups = setting.vae
    vae = {"block_out_channels": widths, "layers_per_block": layers, "norm_num_groups": groups}
    vae |= {"down_block_types": ("DownEncoderBlock2D",) * len(widths)}
    vae |= {"up_block_types": ("UpDecoderBlock2D",) * len(widths)}
    return {
        "dit/transformer": lambda: diffusers.DiTTransformer2DModel(**dit),
        "sd/unet": lambda: diffusers.UNet2DConditionModel(**unet),
        "sd/vae": lambda: diffusers.AutoencoderKL(**vae),
        "sd/text_encoder": lambda: CLIPTextModel(CLIPTextConfig(**text)),
    }


def save_models(setting: Setting, folder: Path, device: str) -> None:
    """Save random models as the published ones are;
    tokenizer and schedulers are those of the tests.
    """
    save_dit(folder / "dit"), save_stable_diffusion(folder / "sd")
    torch.manual_seed(0)
    for place, make in networks(setting).items():
        with torch.device(device):  # a billion normal numbers take their time on a CPU
            network = make()
            # The published start predicts zero.
            for matrix in [p for p in network.parameters() if p.ndim > 1]:
                nn.init.normal_(matrix, std=matrix[0].numel() ** -0.5)
        network.save_pretrained(folder / place)


def flops(setting: Setting, what: str, side: int) -> float:
    """Return the floating-point operations of one call for one image,
    counted on tensors without storage.
    """
    with torch.device("meta"), torch.no_grad():
        call, when, options = networks(setting)[what.split()[0]](), torch.zeros(1).long(), {}
        if what == "dit/transformer":
            options = {"timestep": when, "class_labels": when}
        elif what == "sd/unet":
            options = {
                "timestep": when,
                "encoder_hidden_states": torch.zeros(1, 77, call.config.cross_attention_dim),
            }
        else:
            call = getattr(call, what.split()[1])
        with FlopCounterMode(display=False) as counter:
            call(torch.zeros(1, 3 if what == "sd/vae encode" else 4, side, side), **options)
    return float(counter.get_total_flops())


def flops_per_image(setting: Setting, job: str, model: LatentDiffusion | VAE) -> float:
    """Return those of a whole image: two calls per step, for guidance, and the decoder."""
    side = setting.sides[job]
    if job == "encode":
        return flops(setting, "sd/vae encode", side)
    calls = 2 * len(times_from(model.schedule, model.num_steps, model.strength))
    network = "dit/transformer" if job == "DiT" else "sd/unet"
    return calls * flops(setting, network, side) + flops(setting, "sd/vae decode", side)


def points_of(num: int, side: int, device: str) -> Points:
    """Return random latents of mixed classes."""
    latents = torch.randn(num, 4, side, side, generator=torch.Generator().manual_seed(1))
    labels = 7 * torch.arange(num) % len(SPACE.names)
    return Points(latents.to(device), labels.to(device), torch.zeros(num).long(), list(range(num)))


def model_of(job: str, folder: Path, precision: str, **options) -> LatentDiffusion | VAE:
    """Return our generator or encoder: DiT from pure noise, all that its stock pipeline does;
    SD with D4M's options.
    """
    encoder = VAE(str(folder / "sd"), precision=precision)
    options |= {"encoder": encoder, "label_space": SPACE, "precision": precision}
    if job == "DiT":
        options |= {"start": "noise", "strength": 1.0, "guidance_scale": 4.0, "classes": "imagenet"}
        return DiT(path=str(folder / "dit"), **options)
    # Diffusers rounds a share of a step off.
    strength = round(0.7 * options["num_steps"]) / options["num_steps"]
    options |= {
        "strength": strength,
        "guidance_scale": 8.0,
        "negative_prompt": "cartoon, anime, painting",
    }
    return encoder if job == "encode" else StableDiffusion(path=str(folder / "sd"), **options)


def networks_of(model: LatentDiffusion | VAE) -> nn.Module:
    """Return everything that has to be on the device."""
    return model if isinstance(model, VAE) else model.networks()


def ours_of(model: LatentDiffusion | VAE) -> Callable[[Points], Tensor]:
    """Return our side: images in [0, 1], or latents of three channels taken as an image."""
    if isinstance(model, VAE):
        return torch.inference_mode()(lambda some: model.encode(some.latents[:, :3]))
    return lambda some: model.generate(some) / 2 + 0.5


def stock_of(model: LatentDiffusion | VAE) -> Callable[[Points], Tensor]:
    """Return diffusers' side with the networks of ours;
    Stable Diffusion's encodes the prompts at every call.
    """
    if isinstance(model, VAE):
        call = torch.inference_mode()(model.vae.encode)
        return lambda some: (
            call(some.latents[:, :3].to(model.vae.dtype)).latent_dist.mode() * model.scale
        )
    parts = {
        "vae": model.encoder.vae,
        "scheduler": type(model.schedule).from_config(model.schedule.config),
    }
    if isinstance(model, DiT):
        numbers = SPACE.imagenet_indices()
        pipeline = diffusers.DiTPipeline(transformer=model.network, **parts)
    else:
        parts |= {
            "unet": model.network,
            "text_encoder": model.text_encoder,
            "tokenizer": model.tokenizer,
        }
        parts |= {
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
        pipeline = diffusers.StableDiffusionImg2ImgPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)

    def call(some: Points) -> Tensor:
        labels, own = some.labels.tolist(), {"guidance_scale": model.guidance_scale}
        if isinstance(model, DiT):
            own["class_labels"] = [numbers[label] for label in labels]
        else:
            own |= {"prompt": [model.prompt_of(label) for label in labels], "image": some.latents}
            own |= {
                "negative_prompt": [model.negative_prompt] * len(some),
                "strength": model.strength,
            }
        noise = [torch.Generator().manual_seed(seed) for seed in some.seeds]
        return pipeline(
            **own, num_inference_steps=model.num_steps, generator=noise, output_type="pt"
        ).images

    return call


@dataclass
class Side:
    """One way to do a job, and what was measured of it;
    ``seconds`` are per image, one number per repetition.
    """

    method: str
    precision: str
    points: Points | None = None
    work: Callable[[Points], Tensor] | None = None
    flops: float = 0.0
    skipped: str | None = None
    images: Tensor | None = None
    # Seconds of the first call, and its memory above the weights.
    first: tuple[float, float | None] = (0.0, None)
    seconds: list[float] = field(default_factory=list)


def sides_of(
    setting: Setting, job: str, folder: Path, device: str, peaks: dict[str, float]
) -> Iterator[Side]:
    """Yield the sides of a job, their models on the device."""
    base, fewer = setting.precision, round(0.4 * setting.steps)
    other = "bfloat16" if base == "float32" else "float32"
    levers = ["compiled"] if job == "encode" else ["compiled"] + [f"DPM-Solver++, {fewer} steps"]
    many = points_of(setting.batch[job], setting.sides[job], device)
    few, singles = many.part(slice(FEW)), [many.part(slice(i, i + 1)) for i in range(FEW)]
    for method, precision in [
        (OURS, base),
        (OURS, other),
        *((f"{OURS}, {lever}", base) for lever in levers),
    ]:
        slower = peaks["float32"] / peaks[precision]
        slow_to_compile = device == "cpu" and job != "DiT" and "compiled" in method
        if slower > 4 or slow_to_compile:
            reason = f"products take {slower:.0f} times as long as in float32 here"
            yield Side(
                method, precision, skipped="takes minutes on a CPU" if slow_to_compile else reason
            )
            continue
        options = (
            {"num_steps": fewer, "scheduler": "DPMSolverMultistepScheduler"}
            if "DPM" in method
            else {}
        )
        model = model_of(job, folder, precision, **{"num_steps": setting.steps} | options)
        whole = networks_of(model).to(device)
        if "compiled" in method:
            compile_blocks(whole)
        points = few if precision == "float32" != base else many
        cost = flops_per_image(setting, job, model)
        if method == OURS:
            # In the layout that diffusers gives it.
            theirs = model_of(job, folder, precision, num_steps=setting.steps)
            networks_of(theirs).to(device, memory_format=torch.contiguous_format)
            stock = stock_of(theirs)
            if precision == base:
                yield Side(
                    ONE, base, few, lambda _, f=stock: torch.cat([f(one) for one in singles]), cost
                )
            yield Side(BATCH, precision, points, stock, cost)
        yield Side(method, precision, points, ours_of(model), cost)


def timed(work: Callable, device: str, *arguments) -> tuple[float, Tensor]:
    """Return wall seconds and the result of a call."""
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    wait()
    start = time.perf_counter()
    result = work(*arguments)
    wait()
    return time.perf_counter() - start, result


def measure(sides: list[Side], device: str) -> None:
    """Run every side once to warm up and for its images, then all of them in turn."""
    for side in [side for side in sides if not side.skipped]:
        held = torch.cuda.memory_allocated() if device != "cpu" else 0
        torch.cuda.reset_peak_memory_stats() if device != "cpu" else None
        try:
            seconds, images = timed(side.work, device, side.points)
        except Exception as error:  # of a compiler, or memory; stock and plain ours have to run
            if side.method in (ONE, BATCH, OURS):
                raise
            side.skipped = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            continue
        peak = (torch.cuda.max_memory_allocated() - held) / 2**30 if device != "cpu" else None
        side.images, side.first = images.float().cpu(), (seconds, peak)
    for _ in range(REPEATS):
        for side in [side for side in sides if not side.skipped]:
            side.seconds.append(timed(side.work, device, side.points)[0] / len(side.points))


def matmul_peak(device: str, precision: str) -> float:
    """Return the most FLOP/s of a large square product, best of five."""
    matrix = torch.randn([1024 if device == "cpu" else 8192] * 2, device=device).to(
        getattr(torch, precision)
    )
    return (
        2 * len(matrix) ** 3 / min(timed(torch.matmul, device, matrix, matrix)[0] for _ in range(5))
    )


def rows_of(sides: list[Side], peaks: dict[str, float]) -> Iterator[dict]:
    """Yield a line per side; its images are compared
    with those of the first side of the same precision.
    """
    one, batch, first = sides[0], sides[1], {}  # the first images of each precision
    for side in sides:  # ratios are taken within each repetition: median, least, most
        row = {"method": side.method, "precision": side.precision, "skipped": side.skipped}
        if not side.skipped:
            (kind, most), middle = TOLERANCE[side.precision], statistics.median(side.seconds)
            reference = first.setdefault(side.precision, side.images)
            spread = [min(side.seconds), max(side.seconds)]
            gap = torch.stack([(a - b).abs() for a, b in zip(reference, side.images, strict=False)])
            row |= {
                "images": len(side.points),
                "milliseconds": 1000 * middle,
                "spread": [1000 * s for s in spread],
            }
            for key, other in (("over_one", one), ("over_batch", batch)):
                ratios = [a / b for a, b in zip(other.seconds, side.seconds, strict=True)]
                row[key] = [statistics.median(ratios), min(ratios), max(ratios)]
            row |= {
                "teraflop": side.flops / 1e12,
                "share_of_peak": side.flops / middle / peaks[side.precision],
            }
            row |= {
                "matmul_peak": peaks[side.precision],
                "max": gap.max().item(),
                "mean": gap.mean().item(),
            }
            row["first_call_seconds"], row["peak_gib"] = side.first
            # None: another result is meant.
            row |= {"agrees": None if "DPM" in side.method else row[kind] <= most}
        yield row


def table_of(title: str, rows: list[dict]) -> Table:
    """Return the lines of a job for the console."""
    columns = (
        "method",
        "precision",
        "images",
        "ms/image",
        "min-max",
        "× one",
        "× batch",
        "% peak",
        "GiB",
        "1st call s",
    )
    table = Table(*columns, "difference: max, mean", title=title, title_justify="left", box=None)
    for row in rows:
        cells = ["", "skipped", row["skipped"]]
        if not row["skipped"]:
            cells = [
                str(row["images"]),
                f"{row['milliseconds']:.1f}",
                "{:.1f}-{:.1f}".format(*row["spread"]),
            ]
            cells += [f"{row[key][0]:.2f}" for key in ("over_one", "over_batch")]
            cells += [
                f"{100 * row['share_of_peak']:.0f}",
                "" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}",
            ]
            verdict = {True: "", False: " DISAGREES", None: " (another result)"}[row["agrees"]]
            cells += [
                f"{row['first_call_seconds']:.1f}",
                f"{row['max']:.0e}, {row['mean']:.0e}{verdict}",
            ]
        table.add_row(row["method"], row["precision"], *cells)
    return table


def bars(config: str, rows: list[dict]) -> Iterator[str]:
    """Yield whether each bar is met: on a GPU by any lever that keeps precision and images;
    an even race is met.
    """
    done = [row for row in rows if row["method"].startswith(OURS) and row.get("agrees")]
    for row in [
        row
        for row in done
        if config == "tiny" and row["method"] == OURS and row["precision"] == "float32"
    ]:
        middle, low, high = row["over_batch"]
        verdict = "met" if middle >= 1 else "met (even within the spread)" if high > 1 else "missed"
        yield (
            f"{row['job']}: never slower than the stock batch: "
            f"{middle:.2f} ({low:.2f}-{high:.2f}): {verdict}"
        )
    dit = [
        row
        for row in done
        if config == "full" and row["job"] == "DiT" and row["precision"] == "bfloat16"
    ]
    for key, bar in (("over_one", 10), ("over_batch", 1.3)) if dit else ():
        best = max(dit, key=lambda row, key=key: row[key][0])
        verdict = "met" if best[key][0] >= bar else "missed"
        yield f"DiT-XL/2: {key} at least {bar}: {best[key][0]:.2f} ({best['method']}): {verdict}"
    wrong = [
        f"{row['job']}: {row['method']}, {row['precision']}"
        for row in rows
        if row.get("agrees") is False
    ]
    yield f"images agree within {TOLERANCE}: {'missed by ' + '; '.join(wrong) if wrong else 'met'}"


def main(words: list[str]) -> None:
    """Run some jobs, or all; print and write their rows.

    Rows of other devices, configurations and jobs stay.
    """
    device = "cuda" if "cuda" in words else "cpu"
    config = "tiny" if device == "cpu" or "tiny" in words else "full"
    console = Console(width=180)
    rows = []
    torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32, in convolutions too
    for what, (side, known) in PUBLISHED.items():
        counted = flops(SETTINGS["full"], what, side) / 1e9
        verdict = "agrees" if abs(counted / known - 1) < 1e-3 else "DIFFERS"
        console.print(
            f"{what}: {counted:.1f} GFLOP per call and image, published network {known}: {verdict}"
        )
    peaks = {precision: matmul_peak(device, precision) for precision in TOLERANCE}
    found, name = provenance(), "CPU" if device == "cpu" else torch.cuda.get_device_name()
    here = {"device": name, "threads": torch.get_num_threads(), "repetitions": REPEATS}
    here |= {
        key: (found | found["packages"])[key]
        for key in ("git", "dirty", "machine", "torch", "diffusers")
    }
    console.print(
        here, {f"{name} product, TFLOP/s": round(peak / 1e12, 4) for name, peak in peaks.items()}
    )
    with tempfile.TemporaryDirectory() as folder:
        save_models(SETTINGS[config], Path(folder), device)
        for job in [job for job in JOBS if job in words] or JOBS:
            sides = list(sides_of(SETTINGS[config], job, Path(folder), device, peaks))
            measure(sides, device)
            head = {**here, "config": config, "job": job, "steps": SETTINGS[config].steps}
            lines = [head | row for row in rows_of(sides, peaks)]
            console.print(table_of(f"{config} {job}, {SETTINGS[config].steps} steps", lines))
            old = json.loads(OUTPUT.read_text())["rows"] if OUTPUT.exists() else []
            kept = [
                row
                for row in old
                if any(row[key] != head[key] for key in ("device", "config", "job"))
            ]
            OUTPUT.parent.mkdir(parents=True, exist_ok=True)
            OUTPUT.write_text(json.dumps({"machine": found, "rows": kept + lines}, indent=1))
            rows += lines
            del sides  # frees the device for the next job
    console.print(*bars(config, rows), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
