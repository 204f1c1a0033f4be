"""fit_encoder: train a small VAE on the train split and measure how well it reconstructs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from ddoq.data.images import to_unit
from ddoq.engine.fit import VAEModule
from ddoq.engine.trainer import even_ends, fit_steps
from ddoq.pipeline.graph import Node
from ddoq.stages.runtime import Runtime
from ddoq.utils.handover import Handover
from ddoq.utils.seeding import item_generator, item_seed

_NUM_EPOCHS = 10  # a checkpoint after each
_NUM_MEASURED = 512  # images behind the scaling factor and the PSNR


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write ``vae/`` in diffusers' format; facts:
    ``psnr_db`` on validation images, parameters, latent shape.
    """
    fit = node.identity["fit"]
    images, _ = runtime.tensors(inputs["index"], "train")
    torch.manual_seed(item_seed(fit["seed"], "vae"))
    vae = build_vae(fit, channels=images.shape[1], image_size=images.shape[2])
    side = images.shape[2] // 2 ** (len(fit["block_out_channels"]) - 1)

    def make_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        random = item_generator(fit["seed"], "vae", step)
        chosen = torch.randint(len(images), (fit["batch_size"],), generator=random)
        return to_unit(images[chosen]), torch.randn(
            len(chosen), fit["latent_channels"], side, side, generator=random
        )

    checkpoint = folder / "last.ckpt"
    module = VAEModule(vae, fit["num_steps"], fit["learning_rate"], fit["kl_weight"])
    fit_steps(
        module,
        make_batch,
        even_ends(fit["num_steps"], _NUM_EPOCHS),
        title="fit VAE",
        accelerator=runtime.accelerator,
        checkpoint=checkpoint,
        gradient_clip_val=1.0,
    )
    vae = module.vae.cpu().eval()
    some = images[
        torch.randperm(len(images), generator=item_generator(fit["seed"], "scale"))[:_NUM_MEASURED]
    ]
    with torch.inference_mode():
        latents = torch.cat(
            [vae.encode(to_unit(part)).latent_dist.mode() for part in some.split(64)]
        )
    moments = torch.stack([latents.mean(), 1 / latents.std()])
    Handover(node.stage, "mean and scale of the latents", "lower encoder.fit.learning_rate").finite(
        moments
    )
    vae.register_to_config(
        scaling_factor=1 / latents.std().item(), shift_factor=latents.mean().item()
    )
    vae.save_pretrained(folder / "vae")
    checkpoint.unlink(missing_ok=True)
    held_out, _ = runtime.tensors(inputs["index"], "validation")
    return {
        "psnr_db": round(
            reconstruction_psnr(vae, held_out[:_NUM_MEASURED] if len(held_out) else some), 2
        ),
        "parameters": sum(p.numel() for p in vae.parameters()),
        "latent_shape": list(latents.shape[1:]),
        "scaling_factor": round(vae.config.scaling_factor, 4),
    }


def build_vae(fit: Mapping, channels: int, image_size: int) -> AutoencoderKL:
    """Return an untrained ``AutoencoderKL`` that halves the image once per block but the last."""
    blocks = tuple(fit["block_out_channels"])
    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        latent_channels=fit["latent_channels"],
        block_out_channels=blocks,
        norm_num_groups=min(blocks) // 4,
        down_block_types=("DownEncoderBlock2D",) * len(blocks),
        up_block_types=("UpDecoderBlock2D",) * len(blocks),
        layers_per_block=1,
        mid_block_add_attention=False,
        sample_size=image_size,
    )


def reconstruction_psnr(vae, images) -> float:
    """Return the peak signal-to-noise ratio of the reconstruction of uint8 images, in dB."""
    with torch.inference_mode():
        parts = [to_unit(part) for part in images.split(64)]
        error = torch.cat(
            [(vae(part).sample.clamp(-1, 1) - part).square().mean((1, 2, 3)) for part in parts]
        )
    return 10 * math.log10(4 / error.mean().item())  # pixels span [-1, 1]
