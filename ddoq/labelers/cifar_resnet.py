"""The ResNets for CIFAR."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ddoq.data.class_order import outputs_of_classes
from ddoq.data.label_space import LabelSpace
from ddoq.errors import ConfigError, DataError
from ddoq.labelers.teacher import Teacher
from ddoq.options import FileOf, Given, PositiveInt
from ddoq.utils.state_dicts import require_finite
from ddoq.utils.weights import reason, require_file

_KEY = "teacher.path"
#: ImageNet's, with which the published ones were trained.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIDE = 32


class CIFARResNet(Teacher):
    """A ResNet of depth 6n + 2 for 32×32 images
    (He et al. 2016, section 4.2) from a plain NumPy archive.

    Args:
        path: a local ``.npz`` of named arrays; nothing is unpickled.
        num_classes: of the data set.
        depth: 20, 32, 44, 56, …
        order: the class of every output by name, where it is not the label of the data set.
        label_space: of the data set; ``order`` needs it.

    Raises:
        ConfigError: there is no such depth.
        DataError: the file is missing, unreadable, or holds another network or another number of
            classes; or ``order`` does not name each class once.
    """

    def __init__(
        self,
        path: str | None,
        num_classes: Given[int],
        depth: PositiveInt = 20,
        order: FileOf[Sequence[str]] | None = None,
        label_space: Given[LabelSpace | None] = None,
    ):
        if depth < 8 or depth % 6 != 2:
            raise ConfigError(
                f"teacher.depth: {depth} is not 6n + 2",
                "set teacher.depth to 20, 32, 44, 56 or 110",
            )
        weights = _read(path)
        stored_depth = _depth(weights)
        if stored_depth and stored_depth != depth:
            raise DataError(
                f"teacher.depth: {path} holds a ResNet-{stored_depth}, not a ResNet-{depth}",
                f"set teacher.depth={stored_depth}, "
                f"or teacher.path to the weights of a ResNet-{depth}",
            )
        outputs = len(weights.get("linear.weight", range(num_classes)))
        if outputs != num_classes:
            raise DataError(
                f"{_KEY}: {path} knows {outputs} classes, the data set has {num_classes}",
                f"set {_KEY} to weights that were trained on this data set, "
                "or take another teacher (teacher=own)",
            )
        network = ResNet(depth, num_classes)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise DataError(
                f"{_KEY}: {path} is no ResNet-{depth} for CIFAR ({reason(error)})",
                f"set {_KEY} to another file",
            ) from error
        require_finite(network, str(path), _KEY)
        columns = None
        if order is not None:
            columns = outputs_of_classes(order, label_space, num_classes, "teacher.order")
        super().__init__(network, _MEAN, _STD, _SIDE, columns)


class ResNet(nn.Module):
    """Three groups of (depth - 2) / 6 basic blocks, of 16, 32 and 64 channels,
    each group at half the resolution.
    """

    def __init__(self, depth: int, num_classes: int):
        super().__init__()
        num_blocks = (depth - 2) // 6
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = _group(16, 16, num_blocks)
        self.layer2 = _group(16, 32, num_blocks)
        self.layer3 = _group(32, 64, num_blocks)
        self.linear = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[B, num_classes]``."""
        hidden = self.bn1(self.conv1(images)).relu()
        return self.linear(self.layer3(self.layer2(self.layer1(hidden))).mean((2, 3)))


class _Block(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.stride, self.added = width // channels, width - channels
        self.conv1 = nn.Conv2d(channels, width, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, hidden: Tensor) -> Tensor:
        # option A: a shortcut without weights; the new channels are zeros,
        # half of them before the old ones
        half = self.added // 2
        shortcut = pad(hidden[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        hidden = self.bn1(self.conv1(hidden)).relu()
        return (self.bn2(self.conv2(hidden)) + shortcut).relu()


def _group(channels: int, width: int, num_blocks: int) -> nn.Sequential:
    return nn.Sequential(*[_Block(channels if i == 0 else width, width) for i in range(num_blocks)])


def _read(path: str | None) -> dict[str, Tensor]:
    if path is None:
        raise DataError(
            f"{_KEY}: no weights are given, and nobody publishes them in this form",
            f"save a state dict by numpy.savez and set {_KEY} to the .npz",
        )
    require_file(path, _KEY)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    except Exception as error:  # NumPy raises whatever the bytes happen to break
        raise DataError(
            f"{_KEY}: {path} is no NumPy archive of weights ({reason(error)})",
            f"save a state dict by numpy.savez and set {_KEY} to the .npz",
        ) from error


def _depth(weights: dict[str, Tensor]) -> int | None:
    """Return the depth by the number of blocks;
    ``None`` where they are not those of such a network.
    """
    first = [name for name in weights if name.endswith(".conv1.weight")]
    blocks = {sum(name.startswith(f"layer{group}.") for name in first) for group in (1, 2, 3)}
    return 6 * blocks.pop() + 2 if len(blocks) == 1 and blocks != {0} else None
