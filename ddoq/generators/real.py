"""Real images as they are."""

from __future__ import annotations

import torch
from torch import Tensor

from ddoq.data.images import to_unit
from ddoq.data.indexed import IndexedImages
from ddoq.generators.base import ImageGenerator, Points
from ddoq.options import Given


class Real(ImageGenerator):
    """The training image whose latent is nearest to each point:
    the point itself where it was selected.
    """

    def __init__(self, images: Given[IndexedImages]):
        self.images = images

    def generate(self, points: Points) -> Tensor:
        """Return the source images."""
        return to_unit(torch.stack([self.images[i][1] for i in points.sources.tolist()]))
