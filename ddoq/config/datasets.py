"""Schemas of the data sets, one dataclass per choice of ``dataset=``;
see ``ddoq.config.components``.
"""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from ddoq.config.components import Component


@dataclass
class DatasetConf(Component):
    """See ``ddoq.data.base.ImageDataset``."""

    image_size: int = MISSING
    channels: int = MISSING
    train_per_class: int | None = None
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    split_seed: int = 0
    resize: str = "crop"
    on_bad_image: str = "error"
    pixel_range: list[float] | None = None
    on_leak: str = "keep"
    root: str | None = None


@dataclass
class DigitsConf(DatasetConf):
    _target_: str = "ddoq.data.builtin.Digits"


@dataclass
class FashionMNISTConf(DatasetConf):
    _target_: str = "ddoq.data.builtin.FashionMNIST"
    download: bool = True


@dataclass
class CIFAR10Conf(DatasetConf):
    _target_: str = "ddoq.data.builtin.CIFAR10"
    download: bool = True


@dataclass
class MNISTConf(DatasetConf):
    _target_: str = "ddoq.data.builtin.MNIST"
    download: bool = True


@dataclass
class CIFAR100Conf(DatasetConf):
    _target_: str = "ddoq.data.builtin.CIFAR100"
    download: bool = True


@dataclass
class SVHNConf(DatasetConf):
    _target_: str = "ddoq.data.builtin.SVHN"
    download: bool = True


@dataclass
class ImageNetConf(DatasetConf):
    """``classes``: an entry of ``ddoq.data.catalogue``. ``source``: original or fastai."""

    _target_: str = "ddoq.data.imagenet.ImageNet"
    classes: str = "imagenet1k"
    source: str = "original"


@dataclass
class TinyImageNetConf(DatasetConf):
    _target_: str = "ddoq.data.tiny_imagenet.TinyImageNet"


@dataclass
class ImageFolderConf(DatasetConf):
    _target_: str = "ddoq.data.folder.ImageFolder"
    class_order: str = "text"


@dataclass
class ParquetConf(DatasetConf):
    _target_: str = "ddoq.data.parquet.ParquetImages"
    image_column: str = "image"
    label_column: str = "label"
    class_order: str = "text"
