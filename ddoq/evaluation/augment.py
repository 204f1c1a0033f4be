"""Augmentation of a whole batch on its device, from random numbers drawn beforehand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.special import betaincinv
from torch import Generator, Tensor
from torch.nn.functional import grid_sample

from ddoq.errors import ConfigError
from ddoq.evaluation.dsa import apply_dsa, check_operations, draw_dsa, take
from ddoq.options import NotNegativeFloat, NotNegativeInt, PositiveInt, Share

Draws = dict[str, Tensor]  # random numbers of one batch, on the CPU; every tensor is [B, ...]

_RATIO = (3 / 4, 4 / 3)  # of a crop's width to its height
_ATTEMPTS = 10
_GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601
# Principal components of ImageNet's RGB values in [0, 1] (Krizhevsky et al. 2012):
# standard deviations, directions.
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How a batch of views is made of a batch of images; applied in the order of the fields.

    Every image has its own draws, except for the DSA operation and for the mixing,
    which are drawn per batch.

    Args:
        patch_shuffle: cut each image into this many columns and permute them,
            then its rows (Sun et al. 2024, RDED); 1 for off.
        crop_scale: bounds of a crop's share of the area, as of torchvision's ``RandomResizedCrop``;
            the aspect ratio is between 3/4 and 4/3. ``None`` for off.
        shift: translation by up to this many whole pixels in each direction;
            the border is repeated.
        flip: mirror horizontally with probability 1/2.
        color_jitter: brightness, contrast and saturation: each moves the image towards black,
            its mean grey and its grey by a share that is uniform between minus and plus this
            (Kim et al. 2022, IDC).
        lighting: standard deviation of the noise along the principal components of the colours
            (AlexNet); RGB only.
        dsa_color: DSA's color on every image, before the operation that is drawn
            (Kim et al. 2022, IDC).
        dsa: DSA operations joined by ``_``, e.g. ``color_crop_cutout_flip_scale_rotate``;
            one is drawn per batch.
        cutmix: a of the Beta(a, a) distribution of the area that is kept
            (Yun et al. 2019); 0 for off.
        mixup: a of the Beta(a, a) distribution of the share of the first image
            (Zhang et al. 2018); 0 for off.
        mix_probability: of mixing a batch.

    Raises:
        ConfigError: of an unknown DSA operation, CutMix together with mixup,
            or shares that are no range.
    """

    patch_shuffle: PositiveInt = 1
    crop_scale: Sequence[float] | None = None
    shift: NotNegativeInt = 0
    flip: bool = False
    color_jitter: NotNegativeFloat = 0.0
    lighting: NotNegativeFloat = 0.0
    dsa_color: bool = False
    dsa: str = ""
    cutmix: NotNegativeFloat = 0.0
    mixup: NotNegativeFloat = 0.0
    mix_probability: Share = 1.0

    def __post_init__(self) -> None:
        key = "protocol.augmentation"
        check_operations(self.dsa, f"{key}.dsa")
        if self.cutmix and self.mixup:
            raise ConfigError(
                f"{key}.cutmix: {self.cutmix} and {key}.mixup: {self.mixup} exclude each other",
                "set one of the two to 0",
            )
        if self.crop_scale is not None:
            scale = list(self.crop_scale)
            if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
                raise ConfigError(
                    f"{key}.crop_scale: {scale} is no range of shares of the area",
                    f"give the lowest and the highest share, e.g. {key}.crop_scale=[0.08,1]",
                )

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed."""
        return bool(self.cutmix or self.mixup)

    def draw(self, num_images: int, image_size: int, generator: Generator) -> Draws:
        """Draw what ``views`` and ``mix`` need; what is off has no entry.

        Args:
            num_images: B.
            image_size: side of the square images in pixels.
            generator: on the CPU.

        Returns:
            ``patches`` int64 ``[B, 2, factor]``, the new places of the rows and columns of
            patches; ``crop`` int64 ``[B, 4]`` (top, left, height, width); ``shift`` int64
            ``[B, 2]`` in pixels; ``flip`` bool ``[B]``; ``jitter`` ``[B, 3]``, shares of black,
            mean grey and grey; ``lighting`` ``[B, 3]``; ``dsa_*``, see ``draw_dsa``; if it
            mixes, ``partner`` int64 ``[B]``, ``share`` ``[B]`` of the base image, and for CutMix
            ``box`` int64 ``[B, 4]`` (top, left, bottom, right) of the partner. A batch that is
            not mixed has share 1.
        """
        draws: Draws = {}
        if self.patch_shuffle > 1:
            draws["patches"] = torch.rand(
                num_images, 2, self.patch_shuffle, generator=generator
            ).argsort(2)
        if self.crop_scale is not None:
            draws["crop"] = _draw_crops(num_images, image_size, self.crop_scale, generator)
        if self.shift:
            draws["shift"] = torch.randint(
                -self.shift, self.shift + 1, (num_images, 2), generator=generator
            )
        if self.flip:
            draws["flip"] = torch.rand(num_images, generator=generator) < 0.5
        if self.color_jitter:
            draws["jitter"] = self.color_jitter * (
                2 * torch.rand(num_images, 3, generator=generator) - 1
            )
        if self.lighting:
            draws["lighting"] = self.lighting * torch.randn(num_images, 3, generator=generator)
        if self.dsa_color:
            draws |= draw_dsa("color", num_images, image_size, generator)
        if self.dsa:
            draws |= draw_dsa(self.dsa, num_images, image_size, generator)
        if self.mixes:
            draws |= self._draw_mix(num_images, image_size, generator)
        return draws

    def views(self, images: Tensor, draws: Draws, mean: Tensor, std: Tensor) -> Tensor:
        """Return the augmented, unmixed images. Values are not clamped, as in the sources.

        Args:
            images: floats ``[B, C, H, W]`` in [0, 1].
            draws: of ``draw``, on the images' device.
            mean: per channel. DSA acts on normalised pixels, everything else on [0, 1].
            std: per channel.

        Raises:
            ConfigError: of lighting on images that are not RGB.
        """
        if "patches" in draws:
            rows, columns = (
                _patch_order(places, size)
                for places, size in zip(draws["patches"].unbind(1), images.shape[2:], strict=True)
            )
            images = take(images, rows, columns)
        images = _move(images, draws)
        if "jitter" in draws:
            images = _jitter(images, draws["jitter"])
        if "lighting" in draws:
            images = _light(images, draws["lighting"])
        if any(name.startswith("dsa_") for name in draws):
            mean, std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
            images = apply_dsa((images - mean) / std, draws) * std + mean
        return images

    def mix(self, views: Tensor, draws: Draws) -> Tensor:
        """Return views ``[B, C, H, W]``, each mixed with that of its partner;
        the labels mix as ``draws["share"]``.

        mixup is ``share * view + (1 - share) * partner``;
        CutMix pastes the partner's pixels into the box.
        """
        if not self.mixes:
            return views
        partners = views[draws["partner"]]
        if self.mixup:
            return torch.lerp(partners, views, draws["share"][:, None, None, None].to(views.dtype))
        top, left, bottom, right = draws["box"][..., None].unbind(1)
        rows, columns = (torch.arange(size, device=views.device) for size in views.shape[2:])
        in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
        return torch.where(in_rows[:, None, :, None] & in_columns[:, None, None], partners, views)

    def _draw_mix(self, num_images: int, image_size: int, generator: Generator) -> Draws:
        draws = {"partner": torch.randperm(num_images, generator=generator)}
        mixed, quantile = torch.rand(2, dtype=torch.float64, generator=generator).tolist()
        a = self.cutmix or self.mixup
        share = float(betaincinv(a, a, quantile)) if mixed < self.mix_probability else 1.0
        if self.cutmix:
            centre = torch.randint(image_size, (2,), generator=generator)
            # An odd side loses a pixel, as in the authors' code.
            half = int(image_size * math.sqrt(1 - share)) // 2
            box = torch.cat([centre - half, centre + half]).clamp(0, image_size)
            area = int((box[2:] - box[:2]).prod())
            share = (image_size**2 - area) / image_size**2
            draws["box"] = box.repeat(num_images, 1)
        return draws | {"share": torch.full((num_images,), share)}


def _draw_crops(num_images: int, size: int, scale: Sequence[float], generator: Generator) -> Tensor:
    """Return ``[B, 4]`` (top, left, height, width),
    distributed as torchvision's ``RandomResizedCrop.get_params``.
    """
    low, high = (math.log(ratio) for ratio in _RATIO)
    areas, ratios = torch.rand(2, num_images, _ATTEMPTS, dtype=torch.float64, generator=generator)
    areas = size**2 * (scale[0] + (scale[1] - scale[0]) * areas)
    ratios = (low + (high - low) * ratios).exp()
    # [B, attempts, (height, width)]
    sides = torch.stack([areas / ratios, areas * ratios], 2).sqrt().round().long()
    fits = ((sides > 0) & (sides <= size)).all(2)
    first = fits.int().argmax(1)
    # torchvision falls back on the largest central crop of an allowed ratio;
    # of a square that is the whole image.
    chosen = torch.where(fits.any(1, keepdim=True), sides[torch.arange(num_images), first], size)
    places = torch.rand(num_images, 2, dtype=torch.float64, generator=generator) * (
        size - chosen + 1
    )
    return torch.cat([places.long(), chosen], 1)


def _patch_order(places: Tensor, size: int) -> Tensor:
    """Return the source ``[B, size]`` of each pixel along one axis
    when patch k goes to ``places[:, k]``.

    The last patch takes what the division leaves, so patches may differ in size.
    """
    num_patches = places.shape[1]
    patch = (torch.arange(size, device=places.device) // max(1, size // num_patches)).clamp(
        max=num_patches - 1
    )
    return places[:, patch].argsort(dim=1, stable=True)


def _move(images: Tensor, draws: Draws) -> Tensor:
    """Crop, shift and flip in one pass over the pixels."""
    if not draws.keys() & {"crop", "shift", "flip"}:
        return images
    num, _, height, width = images.shape
    rows = torch.arange(height, device=images.device).expand(num, -1)
    columns = torch.arange(width, device=images.device).expand(num, -1)
    if "shift" in draws:
        rows = (rows + draws["shift"][:, :1]).clamp(0, height - 1)
        columns = (columns + draws["shift"][:, 1:]).clamp(0, width - 1)
    if "flip" in draws:
        columns = torch.where(draws["flip"][:, None], columns.flip(1), columns)
    if "crop" not in draws:
        return take(images, rows, columns)
    starts, sides = draws["crop"][..., None].split(2, 1)
    y = _source(rows, starts[:, 0], sides[:, 0], height).to(images.dtype)
    x = _source(columns, starts[:, 1], sides[:, 1], width).to(images.dtype)
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[..., None].expand(-1, -1, width)], 3)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def _source(pixels: Tensor, start: Tensor, side: Tensor, size: int) -> Tensor:
    """Return where output pixels ``[B, n]`` lie in the image, from -1 to 1,
    when a crop is enlarged to ``size``.
    """
    inside = (pixels + 0.5) * side / size - 0.5
    # Pixels outside the crop take no part: torchvision cuts the crop out before it enlarges it.
    inside = torch.minimum(inside.clamp(min=0), side - 1)
    return (2 * (start + inside) + 1) / size - 1


def _jitter(images: Tensor, shares: Tensor) -> Tensor:
    """Move images towards black, their mean grey and their grey by shares ``[B, 3]``.

    The sources shuffle the three per image. Without clamping they commute, as moving towards the
    grey leaves the grey unchanged, so the order is of no effect and is not drawn.
    """
    black, flat, grey = shares.to(images.dtype)[..., None, None, None].unbind(1)
    luma = images
    if images.shape[1] == 3:
        luma = sum(
            weight * channel for weight, channel in zip(_GREY, images.unbind(1), strict=True)
        )[:, None]
    kept = (1 - black) * (1 - flat)
    offset = luma * (kept * grey) + luma.mean((1, 2, 3), keepdim=True) * ((1 - black) * flat)
    return images * (kept * (1 - grey)) + offset


def _light(images: Tensor, alpha: Tensor) -> Tensor:
    """Add ``sum_k alpha_k * s_k * v_k`` of the principal components to every pixel's colour;
    ``alpha`` ``[B, 3]``.
    """
    if images.shape[1] != 3:
        raise ConfigError(
            "protocol.augmentation.lighting: its noise is in RGB, "
            f"the images have {images.shape[1]} channels",
            "set protocol.augmentation.lighting=0",
        )
    components = alpha.new_tensor(_EIGENVECTORS) * alpha.new_tensor(_EIGENVALUES)  # a column each
    colours = (components * alpha[:, None]).sum(2)
    return images + colours[..., None, None].to(images.dtype)
