"""Deep pictures, of 16 bits or floats: one scale to 8 bits for a whole data set,
never one per file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ddoq.errors import DataError

PixelRange = tuple[float, float]

#: Whites of deep pictures: of floats and masks, and of 8, 10, 12, 14 and 16 bits.
_WHITES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)
_ROUNDING = 1e-3  # by which floats of a normalised picture may pass their white


class DeepImageError(ValueError):
    """A deep picture was to be decoded without a range;
    ``extremes`` has its least and its largest value.
    """

    def __init__(self, extremes: PixelRange):
        super().__init__(
            f"16-bit or float values in [{extremes[0]:g}, {extremes[1]:g}] and no pixel_range"
        )
        self.extremes = extremes


def is_deep(image: Image.Image) -> bool:
    """Tell whether an image has more than 8 bits;
    a conversion by Pillow would clip these to white.
    """
    return image.mode.startswith(("I", "F"))


def to_8_bit(image: Image.Image, pixel_range: Sequence[float] | None) -> Image.Image:
    """Map a deep image to 8 bits: the range's first value to black, its second one to white.

    Raises:
        ValueError: a value is NaN or infinite.
        DeepImageError: there is no range.
    """
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("NaN or infinite values")
    if pixel_range is None:
        raise DeepImageError((float(values.min()), float(values.max())))
    black, white = pixel_range
    levels = (values - black) / (white - black) * 255
    return Image.fromarray(np.clip(levels, 0, 255).round().astype(np.uint8))


def common_range(extremes: np.ndarray) -> PixelRange:
    """Return the range of all deep pictures of a data set,
    given the least and largest value of each, ``[n, 2]``.

    Black is 0, or -1 for values in [-1, 1]; white the first of 1, 255, 1023, 4095, 16383 and 65535
    (a float, or 8 to 16 bits) that is not below any value.

    Raises:
        DataError: the values are of no such kind:
            nobody but the user knows what is black and what is white.
    """
    least, largest = float(extremes[:, 0].min()), float(extremes[:, 1].max())
    if -1 - _ROUNDING <= least < 0 and largest <= 1 + _ROUNDING:
        return -1.0, 1.0
    white = next((white for white in _WHITES if largest <= white * (1 + _ROUNDING)), None)
    if least < 0 or white is None:
        raise DataError(
            f"dataset.pixel_range: {len(extremes)} pictures hold values "
            f"from {least:g} to {largest:g}, and nothing says which of them are black and white",
            f"set dataset.pixel_range=[BLACK,WHITE], e.g. [{least:g},{largest:g}]; "
            "it holds for all pictures alike",
        )
    return 0.0, white
