"""TAEF2, a tiny autoencoder for the latents of the FLUX.2 VAE (Ollin Boer Bohan, MIT)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ddoq.encoders.base import Encoder
from ddoq.errors import DataError
from ddoq.options import Storage
from ddoq.utils.pretrained import for_inference
from ddoq.utils.state_dicts import fill

WIDTH, CHANNELS = 64, 32
_FILES = ("taef2_encoder.pth", "taef2_decoder.pth")


class TAEF2(Encoder):
    """Latents of 32 channels, 8 times smaller than the image,
    of mean about 0 and standard deviation about 0.9.

    A plain module of 2.7 M parameters: good enough to look at on a CPU.

    Args:
        path: folder with ``taef2_encoder.pth`` and ``taef2_decoder.pth``
            (github.com/madebyollin/taesd).
        storage: of latents on disk.
    """

    def __init__(self, path: str = "vae_taef2", storage: Storage = "float32"):
        super().__init__()
        self.storage = getattr(torch, storage)
        self.encoder, self.decoder = _encoder(), _decoder()
        for network, name in zip((self.encoder, self.decoder), _FILES, strict=True):
            file = Path(path) / name
            fill(network, _read(file), str(file), "encoder.path")
        for_inference(self, "float32")

    def encode(self, images: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return latents ``[B, 32, H/8, W/8]`` of images; grey ones are fed as RGB."""
        return self.encoder((images.expand(-1, 3, -1, -1) + 1) / 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Return images ``[B, 3, H, W]``."""
        return self.decoder(latents) * 2 - 1


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class _Block(nn.Module):
    """Three convolutions with a residual; ``pooled`` first mixes the whole map
    in through a group norm.
    """

    def __init__(self, pooled: bool = False):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU()]
        self.conv = nn.Sequential(*layers[:-1])
        if pooled:
            wide = 4 * WIDTH
            self.pool = nn.Sequential(
                nn.Conv2d(WIDTH, wide, 1, bias=False),
                nn.GroupNorm(4, wide),
                nn.ReLU(),
                nn.Conv2d(wide, WIDTH, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pool(x) if hasattr(self, "pool") else x
        return torch.relu(self.conv(x) + x)


def _encoder() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 3, padding=1), _Block()]
    for pooled in (False, False, True):
        layers.append(nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False))
        layers += [_Block(pooled) for _ in range(3)]
    return nn.Sequential(*layers, nn.Conv2d(WIDTH, CHANNELS, 3, padding=1))


def _decoder() -> nn.Sequential:
    layers: list[nn.Module] = [_Clamp(), nn.Conv2d(CHANNELS, WIDTH, 3, padding=1), nn.ReLU()]
    for pooled in (True, False, False):
        layers += [_Block(pooled) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)]
    return nn.Sequential(*layers, _Block(), nn.Conv2d(WIDTH, 3, 3, padding=1))


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return torch.load(file, weights_only=True)
    except FileNotFoundError as error:
        raise DataError(
            f"encoder.path: there is no {file}",
            f"put {' and '.join(_FILES)} of github.com/madebyollin/taesd "
            f"(MIT, 5 MB) into {file.parent}",
        ) from error
    except Exception as error:  # torch raises whatever the bytes happen to break
        raise DataError(
            f"encoder.path: {file} is not a file of weights ({type(error).__name__})",
            "download it again",
        ) from error
