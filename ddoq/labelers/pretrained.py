"""Published classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from ddoq.data.class_order import outputs_of_classes
from ddoq.data.label_space import LabelSpace
from ddoq.errors import ConfigError, DataError, did_you_mean
from ddoq.labelers.teacher import Teacher, last_linear
from ddoq.options import FileOf, Given, PositiveInt
from ddoq.utils.pretrained import load_timm, require_outputs, timm_config
from ddoq.utils.state_dicts import fill, read_weights

_KEY = "teacher.path"
_IMAGENET_CLASSES = 1000


class PretrainedTeacher(Teacher):
    """A classifier of timm or torchvision with weights from a file or,
    those that timm names, from the hub.

    Args:
        model: the library's name: ``resnet18.tv_in1k`` in timm is torchvision's ``resnet18``
            with its first weights.
        label_space: of the data set.
        num_classes: of the data set.
        path: a local file of weights, ``.safetensors`` or ``.pth``;
            ``None``: those that timm names.
        library: ``timm`` or ``torchvision``, which needs ``path``.
        classes: what the outputs are: ``imagenet``: the labels of ImageNet-1K;
            ``dataset``: those of the data set.
        image_size: side to which images are resized. ``None``: with ``imagenet`` classes,
            or where the network takes one side only, that of the published weights; else
            images come as they are.
        order: the class of every output by name, where it is not what ``classes`` says.

    Raises:
        ConfigError: there is no such model, or a class of the data set is not in ImageNet-1K.
        DataError: the weights cannot be had, do not load, or know another number of classes; or
            ``order`` does not name each class once.
    """

    def __init__(
        self,
        model: str,
        label_space: Given[LabelSpace],
        num_classes: Given[int],
        path: str | None = None,
        library: Literal["timm", "torchvision"] = "timm",
        classes: Literal["imagenet", "dataset"] = "imagenet",
        image_size: PositiveInt | None = None,
        order: FileOf[Sequence[str]] | None = None,
    ):
        of_imagenet = classes == "imagenet"
        outputs, columns = _IMAGENET_CLASSES if of_imagenet else num_classes, None
        if order is not None:
            columns = outputs_of_classes(order, label_space, outputs, "teacher.order")
        elif of_imagenet:
            columns = label_space.imagenet_indices("teacher", "own")
        load = _from_timm if library == "timm" else _from_torchvision
        network, mean, std, own_size, is_fixed = load(model, path, outputs, image_size)
        if image_size is None and (of_imagenet or is_fixed):
            image_size = own_size
        super().__init__(network, mean, std, image_size, columns)


#: The network, mean and standard deviation of its images, the side of those it was trained on,
#: and whether it takes no others.
Loaded = tuple[nn.Module, list[float], list[float], int, bool]


def _from_timm(model: str, path: str | None, num_classes: int, image_size: int | None) -> Loaded:
    from timm.data import resolve_model_data_config

    is_fixed = bool(timm_config(model, _KEY).fixed_input_size)
    options = {"img_size": image_size} if image_size and is_fixed else {}
    network = load_timm(model, path, _KEY, num_classes, **options)
    config = resolve_model_data_config(network)
    return network, list(config["mean"]), list(config["std"]), config["input_size"][-1], is_fixed


def _from_torchvision(
    model: str, path: str | None, num_classes: int, image_size: int | None
) -> Loaded:
    from torchvision import models

    # Those two change their input where torchvision itself loads the weights;
    # here they would err without a word.
    usable = set(models.list_models(models)) - {"googlenet", "inception_v3"}
    if model not in usable:
        cause = (
            f"teacher.model: '{model}' is none of the classifiers of torchvision that can be used"
        )
        raise ConfigError(cause, did_you_mean(model, usable))
    published = list(models.get_model_weights(model))
    if path is None:
        url = published[0].url
        raise DataError(
            f"{_KEY}: torchvision's {model} needs a file of weights",
            f"put {url.rsplit('/', 1)[1]} ({url}) "
            f"into one of the folders of paths.models and set {_KEY} to its name",
        )
    network = models.get_model(model, weights=None, num_classes=num_classes)
    weights = read_weights(path, model, _KEY)
    require_outputs(weights, last_linear(network)[0], num_classes, path, _KEY)
    fill(network, weights, model, _KEY)
    own = published[0].transforms()
    side = getattr(network, "image_size", own.crop_size[0])  # a ViT has one, and takes no other
    if image_size not in (None, side) and hasattr(network, "image_size"):
        raise ConfigError(
            f"teacher.image_size: {model} takes images of {side} pixels only",
            f"set it to {side} or null",
        )
    return network, own.mean, own.std, side, hasattr(network, "image_size")
