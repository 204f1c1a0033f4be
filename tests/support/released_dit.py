"""A diffusion transformer after Peebles & Xie 2023 (section 3.2, figure 3), in plain torch,
by the released names.

What it computes is what the authors' network computes:
``ddoq.generators.released`` has something to agree with.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear, silu

WIDTH, HEADS = 384, 6  # a DiT-S


def weights_of(
    num_blocks: int, side: int, num_classes: int, channels: int = 4, patch: int = 2
) -> dict[str, Tensor]:
    """Return random weights by the names of the released file;
    they predict noise and its variance.
    """
    torch.manual_seed(0)
    sizes = {
        "x_embedder.proj": (WIDTH, channels, patch, patch),
        "t_embedder.mlp.0": (WIDTH, 256),
        "t_embedder.mlp.2": (WIDTH, WIDTH),
        "final_layer.adaLN_modulation.1": (2 * WIDTH, WIDTH),
        "final_layer.linear": (patch * patch * 2 * channels, WIDTH),
    }
    for i in range(num_blocks):
        sizes |= {
            f"blocks.{i}.attn.qkv": (3 * WIDTH, WIDTH),
            f"blocks.{i}.attn.proj": (WIDTH, WIDTH),
            f"blocks.{i}.mlp.fc1": (4 * WIDTH, WIDTH),
            f"blocks.{i}.mlp.fc2": (WIDTH, 4 * WIDTH),
            f"blocks.{i}.adaLN_modulation.1": (6 * WIDTH, WIDTH),
        }
    weights = {f"{name}.weight": 0.04 * torch.randn(size) for name, size in sizes.items()}
    weights |= {f"{name}.bias": 0.04 * torch.randn(size[0]) for name, size in sizes.items()}
    weights["y_embedder.embedding_table.weight"] = torch.randn(num_classes + 1, WIDTH)
    weights["pos_embed"] = positions(side // patch)[None]
    return weights


def positions(grid: int) -> Tensor:
    """Return sines and cosines of a patch's column, then of its row, ``[grid * grid, WIDTH]``."""
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    rates = 10000.0 ** (-torch.arange(WIDTH // 4, dtype=torch.float64) / (WIDTH // 4))
    angles = [place.reshape(-1, 1) * rates for place in (columns, rows)]
    return torch.cat(
        [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1
    ).float()


def forward(weights: dict[str, Tensor], sample: Tensor, time: Tensor, labels: Tensor) -> Tensor:
    """Return noise and variance ``[B, 2C, H, W]`` of a noisy sample ``[B, C, H, W]``."""

    def dense(name: str, x: Tensor) -> Tensor:
        return linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return layer_norm(x, (WIDTH,), eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    patches = weights["x_embedder.proj.weight"]
    patch = patches.shape[-1]
    embedded = nn.functional.conv2d(sample, patches, weights["x_embedder.proj.bias"], stride=patch)
    grid = embedded.shape[-1]
    x = embedded.flatten(2).transpose(1, 2) + weights["pos_embed"]
    angles = time[:, None] * torch.exp(-math.log(10000) * torch.arange(128) / 128)
    waves = torch.cat([angles.cos(), angles.sin()], 1)
    condition = dense("t_embedder.mlp.2", silu(dense("t_embedder.mlp.0", waves)))
    condition = silu(condition + weights["y_embedder.embedding_table.weight"][labels])
    for i in range(sum(name.endswith("attn.qkv.weight") for name in weights)):
        block = f"blocks.{i}."
        shift1, scale1, gate1, shift2, scale2, gate2 = dense(
            f"{block}adaLN_modulation.1", condition
        ).chunk(6, 1)
        x = x + gate1[:, None] * attention(dense, block, modulated(x, shift1, scale1))
        hidden = gelu(dense(f"{block}mlp.fc1", modulated(x, shift2, scale2)), approximate="tanh")
        x = x + gate2[:, None] * dense(f"{block}mlp.fc2", hidden)
    x = dense(
        "final_layer.linear",
        modulated(x, *dense("final_layer.adaLN_modulation.1", condition).chunk(2, 1)),
    )
    x = x.view(len(x), grid, grid, patch, patch, -1)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(len(x), -1, grid * patch, grid * patch)


def attention(dense, block: str, x: Tensor) -> Tensor:
    """Return multi-head self-attention of ``[B, T, WIDTH]``."""
    batch, tokens, _ = x.shape
    query, key, value = (
        dense(f"{block}attn.qkv", x).view(batch, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
    )
    shares = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
    return dense(
        f"{block}attn.proj", (shares @ value).transpose(1, 2).reshape(batch, tokens, WIDTH)
    )
