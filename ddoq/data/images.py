"""From an encoded picture of any kind to a square uint8 tensor."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from PIL import Image, ImageOps

#: What Pillow raises for files that are truncated, empty, not an image, or absurdly large.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def to_uint8(image: Image.Image, size: int, channels: int, resize: str = "crop") -> torch.Tensor:
    """Decode an image and make it a square.

    Args:
        image: of any mode (grey, palette, CMYK, 16 bit, with alpha, animated: the first frame).
        size: side of the result in pixels.
        channels: 1 or 3.
        resize: ``crop`` scales the shorter side to ``size`` and crops the longer one about the centre, ``squash``
            scales both.

    Returns:
        uint8 ``[channels, size, size]``.

    Raises:
        One of ``UNREADABLE`` where the file is broken.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # palette with transparency, corrupt EXIF: harmless here
        image.load()
        if image.mode.startswith(("I", "F")):  # 16-bit grey (and TIFF floats) would clip to white
            image = Image.fromarray(_to_8_bit(np.asarray(image)))
        image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (size, size):
        fit = Image.Image.resize if resize == "squash" else ImageOps.fit
        image = fit(image, (size, size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    values = np.nan_to_num(values.astype(np.float64))
    top = 1.0 if values.max() <= 1 else 255.0 if values.max() <= 255 else 65535.0
    return np.clip(values / top * 255, 0, 255).round().astype(np.uint8)


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """Map uint8 pixels to floats in [-1, 1], the range of encoders and generators."""
    return images.float() / 127.5 - 1


def from_unit(images: torch.Tensor) -> torch.Tensor:
    """Map floats in [-1, 1] back to uint8 pixels, clamping."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
