"""From an encoded picture of any kind to a square uint8 tensor."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Sequence
from textwrap import shorten

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ddoq.data.deep import is_deep, to_8_bit


def fault(error: Exception) -> str | None:
    """Return what is wrong with the bytes of an image, in words that are the same everywhere.

    Args:
        error: what opening and decoding them raised;
            over damaged bytes, Pillow's readers raise all kinds of errors.

    Returns:
        ``None`` where not the bytes are to blame but the machine:
        no permission, a dead disk, no memory.
    """
    if isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
    ):
        return None  # EINVAL: damaged bytes sent the reader to a place before the file's beginning
    if isinstance(error, UnidentifiedImageError):
        return "no image of a known kind"  # Pillow's text names an address in memory
    return shorten(f"{type(error).__name__}: {error}", 200, placeholder=" …")


#: Shares of red, green and blue in the luma of ITU-R 601.
_LUMA = (0.299, 0.587, 0.114)


def to_uint8(
    image: Image.Image,
    size: int,
    channels: int,
    resize: str = "crop",
    pixel_range: Sequence[float] | None = None,
) -> torch.Tensor:
    """Decode an image and make it a square.

    Args:
        image: of any mode (grey, palette, CMYK, 16 bit, with alpha, animated: the first frame).
            Transparency is dropped and an EXIF orientation not applied, as in torchvision's
            ``ImageFolder``, which the literature uses.
        size: side of the result in pixels.
        channels: 1 or 3.
        resize: ``crop`` scales the shorter side to ``size``
            and crops the longer one about the centre, ``squash`` scales both.
        pixel_range: values of 16-bit and float pictures that become black and white;
            see ``ddoq.data.deep``.

    Returns:
        uint8 ``[channels, size, size]``.

    Raises:
        DeepImageError: a 16-bit or float picture without a range.
        Whatever Pillow does where the file is broken; see ``fault``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # palette with transparency, corrupt EXIF: harmless here
        image.load()
        if is_deep(image):
            image = to_8_bit(image, pixel_range)
        image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (size, size):
        fit = Image.Image.resize if resize == "squash" else ImageOps.fit
        image = fit(image, (size, size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """Map uint8 pixels to floats in [-1, 1], the range of encoders and generators."""
    return images.float() / 127.5 - 1


def with_channels(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Return float images ``[B, 1 or 3, H, W]`` with as many channels as the data have:
    colour models decode grey data.

    Colours become their ITU-R 601 luma, as in Pillow's ``convert("L")``; a grey image is repeated.
    """
    if images.shape[1] == channels:
        return images
    if channels == 1:
        return (images * images.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return images.expand(-1, channels, -1, -1)


def from_unit(images: torch.Tensor) -> torch.Tensor:
    """Map floats in [-1, 1] back to uint8 pixels, clamping."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
