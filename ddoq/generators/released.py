"""DiT as its authors release it: one file of weights, ``DiT-XL-2-256x256.pt``,
read into diffusers' network.

The two differ in names (diffusers has the embedders in every block, and queries, keys and
values apart) and in three numbers that diffusers' configuration or code fixes otherwise: the
epsilon of the second norm, the frequencies of the time's embedding, and the table of positions,
which is the file's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddoq.errors import DataError
from ddoq.utils.pretrained import for_inference
from ddoq.utils.state_dicts import read_stored, require_finite
from ddoq.utils.weights import loading, require_file

#: Attention heads of a DiT-S, -B, -L and -XL by its width (Peebles & Xie 2023, table 1):
#: no tensor tells them.
_HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
_PATCHES = "x_embedder.proj.weight"
_TIME = "t_embedder.mlp"
_CLASSES = "y_embedder.embedding_table.weight"
_EPSILON = 1e-6


def describe(path: str, key: str) -> dict[str, dict[str, Any]]:
    """Return what ``config.json`` of the network and of the scheduler would say;
    no weights are read.

    Args:
        path: of a released file, or of a checkpoint of its training, of which ``ema`` is taken.
        key: config key that errors name.

    Raises:
        DataError: it is none.
    """
    model_config = _config(_read(path, key, "meta"), path, key)
    schedule = {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_schedule": "linear",
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "prediction_type": "epsilon",
    }
    if model_config["out_channels"] == 2 * model_config["in_channels"]:
        schedule["variance_type"] = "learned_range"
    return {
        "transformer": {"_class_name": "DiTTransformer2DModel", **model_config},
        "scheduler": schedule,
    }


def load_released(path: str, key: str, precision: str):
    """Return the network in a released file, ready for inference; see ``describe``."""
    from diffusers import DiTTransformer2DModel
    from diffusers.models.embeddings import Timesteps

    weights = _read(path, key, "cpu")
    model_config = _config(weights, path, key)
    positions = weights.pop("pos_embed")
    with torch.device("meta"):
        network = DiTTransformer2DModel(**model_config)
    with loading(path, key):
        network.load_state_dict(_renamed(weights, model_config["num_layers"]), assign=True)
    network.pos_embed.pos_embed = positions.float()
    for module in network.modules():
        if isinstance(module, Timesteps):
            # Frequencies 10000^(-i / 128), where diffusers divides by 127.
            module.downscale_freq_shift = 0
    require_finite(network, path, key)
    return for_inference(network, precision)


def _read(path: str, key: str, device: str) -> dict[str, Tensor]:
    require_file(path, key)
    stored = read_stored(path, path, key, device)
    stored = stored if isinstance(stored, Mapping) else {}
    weights = next(
        (stored[name] for name in ("ema", "model", "state_dict") if name in stored), stored
    )
    needed = (_PATCHES, "pos_embed", f"{_TIME}.0.weight", _CLASSES, "final_layer.linear.weight")
    absent = [name for name in needed if not isinstance(weights, Mapping) or name not in weights]
    if absent:
        folder = next((top for top in Path(path).resolve().parents[:2] if _is_folder(top)), None)
        raise DataError(
            f"{key}: {path} is no checkpoint of the DiT repository (it lacks {absent[0]})",
            f"set {key}={folder}"
            if folder
            else "give DiT-XL-2-256x256.pt or -512x512.pt "
            "(dl.fbaipublicfiles.com/DiT/models/), or the folder of a DiTPipeline of diffusers",
        )
    return dict(weights)


def _is_folder(top: Path) -> bool:
    return (top / "transformer" / "config.json").is_file()


def _config(weights: Mapping[str, Tensor], path: str, key: str) -> dict[str, Any]:
    """Return what the shapes of a DiT's weights tell of it, as arguments of diffusers' class."""
    width, channels, patch, _ = weights[_PATCHES].shape
    if width not in _HEADS:
        raise DataError(
            f"{key}: {path} holds a DiT of width {width}, "
            "whose number of attention heads is not known",
            f"take one of width {', '.join(map(str, _HEADS))}, "
            "or the folder of a DiTPipeline of diffusers",
        )
    blocks = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    return {
        "num_attention_heads": _HEADS[width],
        "attention_head_dim": width // _HEADS[width],
        "in_channels": channels,
        "out_channels": len(weights["final_layer.linear.weight"]) // patch**2,
        "num_layers": len(blocks),
        "sample_size": round(weights["pos_embed"].shape[1] ** 0.5) * patch,
        "patch_size": patch,
        "num_embeds_ada_norm": len(weights[_CLASSES]) - 1,  # the last one is the null class
        "norm_eps": _EPSILON,
    }


#: Names in the released file and in diffusers:
#: of the ends, of a block, and of the embedders that every block shares.
_ENDS = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
_BLOCK = {
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
    "adaLN_modulation.1": "norm1.linear",
}
_SHARED = {
    "t_embedder.mlp.0": "norm1.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "norm1.emb.timestep_embedder.linear_2",
    "y_embedder.embedding_table": "norm1.emb.class_embedder.embedding_table",
}


def _renamed(weights: Mapping[str, Tensor], num_blocks: int) -> dict[str, Tensor]:
    """Return released weights by diffusers' names;
    what has no name there keeps its own, and is refused.
    """
    renamed = {}
    for name, tensor in weights.items():
        module, _, kind = name.rpartition(".")
        block = ".".join(module.split(".")[:2])
        inner = module.removeprefix(f"{block}.")
        place = block.replace("blocks", "transformer_blocks")
        if module in _SHARED:
            for i in range(num_blocks):
                renamed[f"transformer_blocks.{i}.{_SHARED[module]}.{kind}"] = tensor
        elif inner == "attn.qkv":
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{place}.attn1.to_{part}.{kind}"] = rows
        elif inner in _BLOCK:
            renamed[f"{place}.{_BLOCK[inner]}.{kind}"] = tensor
        else:
            renamed[f"{_ENDS.get(module, module)}.{kind}"] = tensor
    return renamed
