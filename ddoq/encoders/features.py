"""Features of a pretrained network: a space to quantize in, without a way back to images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ddoq.options import OfStages, PositiveInt, Representative
from ddoq.utils.pretrained import load_timm


class Features(nn.Module):
    """The pooled features of a timm model, DINOv2's for example.

    Args:
        model: timm's name.
        path: a local file of weights; ``None``: those that timm names, from the hub.
        image_size: side to which images are resized; ``None``: the model's own.
        representative: of a cell among the latents: the ``mean`` of its members, or the one
            ``nearest`` to its centroid.
    """

    storage = torch.float32
    remedy = "replace the weights in space.path, or take another space.model"

    representative: OfStages[Representative] = "mean"

    def __init__(self, model: str, path: str | None = None, image_size: PositiveInt | None = None):
        super().__init__()
        from timm.data import resolve_model_data_config

        flexible = {"img_size": image_size} if image_size and "vit" in model else {}
        self.network = load_timm(model, path, "space.path", **flexible).requires_grad_(False).eval()
        config = resolve_model_data_config(self.network)
        self.image_size = image_size or config["input_size"][-1]
        for name in ("mean", "std"):
            self.register_buffer(
                name, torch.tensor(config[name]).view(1, -1, 1, 1), persistent=False
            )

    def encode(self, images: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the features ``[B, F]`` of images ``[B, C, H, W]`` in [-1, 1]."""
        images = images.expand(-1, self.mean.shape[1], -1, -1) if images.shape[1] == 1 else images
        images = interpolate(images, self.image_size, mode="bicubic", antialias=True).clamp(-1, 1)
        return self.network(((images + 1) / 2 - self.mean) / self.std)
