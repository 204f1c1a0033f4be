"""The ConvNet of the distillation literature."""

from __future__ import annotations

from torch import Tensor, nn

from ddoq.errors import ConfigError


class ConvNet(nn.Module):
    """``depth`` blocks of 3×3 convolution, instance norm, ReLU and 2×2 average pooling, then a linear layer.

    Gidaris & Komodakis 2018, as used since Zhao et al. 2021 (width 128, depth 3 for 32×32).

    Args:
        channels: of the image.
        num_classes: outputs.
        image_size: side of the image.
        depth: number of blocks.
        width: channels of every block.
    """

    def __init__(self, channels: int, num_classes: int, image_size: int, depth: int = 3, width: int = 128):
        super().__init__()
        if image_size >> depth < 1:
            raise ConfigError(
                f"student.depth: {depth} poolings leave nothing of a {image_size}×{image_size} image",
                f"set student.depth to at most {image_size.bit_length() - 1}",
            )
        blocks: list[nn.Module] = []
        for i in range(depth):
            blocks += [
                nn.Conv2d(channels if i == 0 else width, width, 3, padding=1),
                nn.GroupNorm(width, width),  # instance norm with affine weights; works on 1×1 maps too
                nn.ReLU(inplace=True),
                nn.AvgPool2d(2),
            ]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width * (image_size >> depth) ** 2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[B, num_classes]``."""
        return self.classifier(self.features(images).flatten(1))
