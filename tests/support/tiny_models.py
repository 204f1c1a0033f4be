"""Randomly initialised models of the published classes, small enough for a CPU,
saved as the published ones are.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTTransformer2DModel,
    PNDMScheduler,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


def _excite(model: torch.nn.Module, std: float = 0.1) -> torch.nn.Module:
    """Fill matrices with noise: the published initialisation predicts zero,
    which would hide mistakes.
    """
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=std)
    return model.eval()


def save_dit(folder: Path, num_classes: int = 1000, side: int = 8, channels: int = 4) -> Path:
    """Save what ``facebook/DiT-XL-2-256`` is made of:
    a transformer that also predicts the variance, and DDIM.
    """
    torch.manual_seed(0)
    model = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        in_channels=channels,
        out_channels=2 * channels,
        sample_size=side,
        patch_size=2,
        num_embeds_ada_norm=num_classes,
    )
    _excite(model).save_pretrained(folder / "transformer")
    DDIMScheduler(clip_sample=False).save_pretrained(folder / "scheduler")
    return folder


def save_vae(folder: Path, halvings: int = 3) -> Path:
    """Save a VAE with four channels, 8 times smaller than the image,
    as ``stabilityai/sd-vae-ft-mse`` is.
    """
    torch.manual_seed(0)
    AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(8,) * (halvings + 1),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * (halvings + 1),
        up_block_types=("UpDecoderBlock2D",) * (halvings + 1),
        scaling_factor=0.18215,
    ).save_pretrained(folder)
    return folder


def save_stable_diffusion(folder: Path) -> Path:
    """Save what ``stable-diffusion-v1-5`` is made of:
    VAE, U-Net, CLIP text encoder, tokenizer and PNDM.
    """
    save_vae(folder / "vae")
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=8,
    )
    _excite(unet).save_pretrained(folder / "unet")
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *_bytes(), *(f"{c}</w>" for c in _bytes())]
    tokenizer = CLIPTokenizer(
        vocab={token: i for i, token in enumerate(vocabulary)}, merges=[], model_max_length=77
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    _excite(CLIPTextModel(config)).save_pretrained(folder / "text_encoder")
    PNDMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        skip_prk_steps=True,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    return folder


def _bytes() -> list[str]:
    """Return the characters that stand for bytes in a byte-level vocabulary: the printable ones."""
    return [chr(i) for i in [*range(33, 127), *range(161, 173), *range(174, 256)]]
