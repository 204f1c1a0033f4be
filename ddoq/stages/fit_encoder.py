"""fit_encoder: train a small VAE on the train split and measure how well it reconstructs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from ddoq.pipeline.graph import Node
from ddoq.stages.runtime import Runtime

VERSION = 1
_NUM_EPOCHS = 10  # a checkpoint after each


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write ``vae/`` in diffusers' format; facts: ``psnr_db`` on validation images, parameters, latent shape."""
    import torch
    from diffusers import AutoencoderKL

    from ddoq.data.images import to_unit
    from ddoq.engine.fit import VAEModule
    from ddoq.engine.trainer import fit_steps
    from ddoq.utils.seeding import item_generator, item_seed

    fit = node.identity["fit"]
    images, _ = runtime.tensors(inputs["index"], "train")
    torch.manual_seed(item_seed(fit["seed"], "vae"))
    vae = AutoencoderKL(
        in_channels=images.shape[1], out_channels=images.shape[1], latent_channels=fit["latent_channels"],
        block_out_channels=tuple(fit["block_out_channels"]), norm_num_groups=min(fit["block_out_channels"]) // 4,
        down_block_types=("DownEncoderBlock2D",) * len(fit["block_out_channels"]),
        up_block_types=("UpDecoderBlock2D",) * len(fit["block_out_channels"]),
        layers_per_block=1, sample_size=images.shape[2],
    )
    side = images.shape[2] // 2 ** (len(fit["block_out_channels"]) - 1)

    def make_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        random = item_generator(fit["seed"], "vae", step)
        chosen = torch.randint(len(images), (fit["batch_size"],), generator=random)
        return to_unit(images[chosen]), torch.randn(len(chosen), fit["latent_channels"], side, side, generator=random)

    checkpoint = folder / "last.ckpt"
    module = VAEModule(vae, fit["num_steps"], fit["learning_rate"], fit["kl_weight"])
    fit_steps(module, make_batch, fit["num_steps"], title="fit VAE", accelerator=runtime.accelerator,
              num_epochs=_NUM_EPOCHS, checkpoint=checkpoint)
    vae = module.vae.cpu().eval()
    held_out, _ = runtime.tensors(inputs["index"], "validation")
    with torch.inference_mode():
        sample = to_unit(images[torch.randperm(len(images), generator=item_generator(fit["seed"], "scale"))[:512]])
        encoded = torch.cat([vae.encode(part).latent_dist.mode() for part in sample.split(64)])
        error = torch.cat([(vae(part).sample.clamp(-1, 1) - part).square().mean((1, 2, 3))
                           for part in to_unit(held_out[:512] if len(held_out) else images[:512]).split(64)])
    vae.register_to_config(scaling_factor=1 / encoded.std().item())
    vae.save_pretrained(folder / "vae")
    checkpoint.unlink(missing_ok=True)
    return {
        "psnr_db": round(10 * math.log10(4 / error.mean().item()), 2),  # images span [-1, 1]
        "parameters": sum(p.numel() for p in vae.parameters()),
        "latent_shape": list(encoded.shape[1:]),
        "scaling_factor": vae.config.scaling_factor,
    }
