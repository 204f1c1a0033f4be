"""Any classifier of timm, by name."""

from __future__ import annotations

from typing import Literal

import timm
import torch
from timm.layers import BatchNormAct2d, PatchEmbed
from timm.models.resnet import ResNet
from torch import Tensor, nn

from ddoq.errors import ConfigError, did_you_mean
from ddoq.options import Given
from ddoq.students.parts import InstanceNorm, choose


class TimmStudent(nn.Module):
    """A timm model, trained from scratch.

    Args:
        channels: of the image.
        num_classes: outputs.
        image_size: side of the image.
        model: timm name, e.g. ``resnet18``.
        norm: ``instance`` puts instance norm, its weights at one, in place of every batch norm, as
            the evaluation of IDC and Minimax does. A model without batch norm (transformers,
            ConvNeXt) keeps the norm it has, for a protocol may ask for instance norm in all its
            students. ``batch`` and ``None`` leave every model as it is.
        small_stem: replace a ResNet's stride-2 7×7 stem and max pooling by a 3×3 convolution
            for images up to 64×64, as the literature does. Other models have no such stem
            and stay as they are.

    Raises:
        ConfigError: timm has no such model, there is no such norm,
            or images of this size do not fit.
    """

    def __init__(
        self,
        channels: Given[int],
        num_classes: Given[int],
        image_size: Given[int],
        model: str = "resnet18",
        norm: Literal["instance", "batch"] | None = None,
        small_stem: bool = True,
    ):
        super().__init__()
        if not timm.is_model(model):
            raise ConfigError(
                f"student.model: timm has no '{model}'", did_you_mean(model, timm.list_models())
            )
        instance = norm is not None and choose(
            "student.norm", norm, {"instance": True, "batch": False}
        )
        made_for = timm.get_pretrained_cfg(model)
        size = {"img_size": image_size} if made_for.fixed_input_size else {}
        try:
            self.network = timm.create_model(
                model, in_chans=channels, num_classes=num_classes, **size
            )
            if small_stem and image_size <= 64:
                _shrink_stem(self.network, channels)
            if instance:
                _replace_batch_norm(self.network)
            _try_size(self.network, channels, image_size)
        except (ArithmeticError, AssertionError, IndexError, RuntimeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"student.model: {model} does not take images of {image_size} pixels ({reason})",
                "set protocol.image_size, "
                f"e.g. to the {made_for.input_size[-1]} it is made for, or another student.model",
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[B, num_classes]``."""
        return self.network(images)


def _shrink_stem(network: nn.Module, channels: int) -> None:
    """Let a ResNet see every pixel of a small image;
    leave other models, and ResNets of another stem, alone.
    """
    if isinstance(network, ResNet) and isinstance(network.conv1, nn.Conv2d):
        network.conv1 = nn.Conv2d(channels, network.conv1.out_channels, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()


def _replace_batch_norm(module: nn.Module) -> None:
    """Put instance norm in place of every batch norm inside a module,
    keeping what timm built into the latter.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            norm = InstanceNorm(child.num_features)
            fused = isinstance(child, BatchNormAct2d)  # one module for norm and activation
            setattr(module, name, nn.Sequential(norm, child.drop, child.act) if fused else norm)
        else:
            _replace_batch_norm(child)


def _try_size(network: nn.Module, channels: int, image_size: int) -> None:
    """Classify one black image: most models find out only then that a size does not fit.

    Raises:
        ValueError: patches do not cover the image;
            timm would drop what is left over without a word.
        Exception: whatever timm or torch raise otherwise.
    """
    patches = getattr(network, "patch_embed", None)
    if isinstance(patches, PatchEmbed) and any(image_size % side for side in patches.patch_size):
        raise ValueError(f"no multiple of its {patches.patch_size[0]}-pixel patches")
    device = next(network.parameters()).device
    with torch.no_grad():
        network.eval()(torch.zeros(1, channels, image_size, image_size, device=device))
    network.train()
