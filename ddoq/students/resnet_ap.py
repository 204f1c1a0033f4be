"""The ResNet with average pooling of the distillation literature."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ddoq.errors import ConfigError
from ddoq.options import Given
from ddoq.students.parts import InstanceNorm, choose

#: Residual blocks in each of the four stages. From depth 50 on they are bottlenecks.
_NUM_BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}
_NORMS = {"instance": InstanceNorm, "batch": nn.BatchNorm2d, "none": nn.Identity}


class ResNetAP(nn.Module):
    """A ResNet whose every stride is an average pooling after a convolution of stride 1.

    Kim et al. 2022 (IDC), as used by Gu et al. 2024 (Minimax). The stem follows the image: a
    3×3 convolution up to 64 pixels; with 2×2 pooling up to 128; above, a 7×7 convolution with
    4×4 pooling. Stages of 64, 128, 256 and 512 channels (four times these for bottlenecks); the
    last map is averaged.

    Args:
        channels: of the image.
        num_classes: outputs.
        image_size: side of the image.
        depth: 10, 18, 34, 50 or 101.
        norm: ``instance``, ``batch`` or ``none``.

    Raises:
        ConfigError: the image is too small, or there is no such depth or norm.
    """

    def __init__(
        self,
        channels: Given[int],
        num_classes: Given[int],
        image_size: Given[int],
        depth: Literal[10, 18, 34, 50, 101] = 10,
        norm: Literal["instance", "batch", "none"] = "instance",
    ):
        super().__init__()
        num_blocks = choose("student.depth", depth, _NUM_BLOCKS)
        choose("student.norm", norm, _NORMS)
        if image_size < 16:
            raise ConfigError(
                "protocol.image_size: a ResNetAP halves images three times, "
                f"which leaves too little of {image_size}",
                "set protocol.image_size to at least 16, or choose a ConvNet",
            )
        kernel, pool = 7, 4
        if image_size <= 128:
            kernel, pool = 3, 1 if image_size <= 64 else 2
        self.stem = nn.Sequential(
            *_convolution(channels, 64, kernel, norm), nn.ReLU(inplace=True), nn.AvgPool2d(pool)
        )
        blocks: list[nn.Module] = []
        incoming = 64
        for stage, num in enumerate(num_blocks):
            for i in range(num):
                blocks.append(
                    _Residual(
                        incoming, 64 << stage, 2 if stage and i == 0 else 1, norm, depth >= 50
                    )
                )
                incoming = blocks[-1].outgoing
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(incoming, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[B, num_classes]``."""
        return self.classifier(self.blocks(self.stem(images)).mean((2, 3)))


class _Residual(nn.Module):
    """Two 3×3 convolutions of ``width`` channels, or a bottleneck, plus a shortcut;
    pooled before the last one.
    """

    def __init__(self, incoming: int, width: int, pool: int, norm: str, bottleneck: bool):
        super().__init__()
        self.outgoing = 4 * width if bottleneck else width
        between = [nn.ReLU(inplace=True), nn.AvgPool2d(pool)]
        if bottleneck:
            reduce = [*_convolution(incoming, width, 1, norm), nn.ReLU(inplace=True)]
            self.branch = nn.Sequential(
                *reduce,
                *_convolution(width, width, 3, norm),
                *between,
                *_convolution(width, self.outgoing, 1, norm),
            )
        else:
            self.branch = nn.Sequential(
                *_convolution(incoming, width, 3, norm),
                *between,
                *_convolution(width, width, 3, norm),
            )
        self.shortcut = nn.Sequential()
        if pool > 1 or incoming != self.outgoing:
            convolution, normalise = _convolution(incoming, self.outgoing, 1, norm)
            self.shortcut = nn.Sequential(convolution, nn.AvgPool2d(pool), normalise)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        return self.activation(self.branch(maps) + self.shortcut(maps))


def _convolution(incoming: int, outgoing: int, kernel: int, norm: str) -> list[nn.Module]:
    """Return a convolution that keeps the size of its maps, and its norm,
    whose shift makes a bias superfluous.
    """
    convolution = nn.Conv2d(incoming, outgoing, kernel, padding=kernel // 2, bias=norm == "none")
    return [convolution, _NORMS[norm](outgoing)]
