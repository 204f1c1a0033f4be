"""Any classifier of timm, by name."""

from __future__ import annotations

import timm
from torch import Tensor, nn

from ddoq.errors import ConfigError, did_you_mean


class TimmStudent(nn.Module):
    """A timm model, trained from scratch.

    Args:
        channels: of the image.
        num_classes: outputs.
        image_size: side of the image.
        model: timm name, e.g. ``resnet18``.
        small_stem: replace a ResNet's stride-2 7×7 stem and max pooling by a 3×3 convolution, as the literature
            does for images up to 64×64.
    """

    def __init__(
        self, channels: int, num_classes: int, image_size: int, model: str = "resnet18", small_stem: bool = True
    ):
        super().__init__()
        if not timm.is_model(model):
            raise ConfigError(f"student.model: timm has no '{model}'", did_you_mean(model, timm.list_models()))
        self.network = timm.create_model(model, pretrained=False, in_chans=channels, num_classes=num_classes)
        if small_stem and image_size <= 64:
            stem = getattr(self.network, "conv1", None)
            if not isinstance(stem, nn.Conv2d):
                raise ConfigError(f"student.small_stem: {model} has no ResNet stem", "set student.small_stem=false")
            self.network.conv1 = nn.Conv2d(channels, stem.out_channels, 3, padding=1, bias=False)
            self.network.maxpool = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[B, num_classes]``."""
        return self.network(images)
