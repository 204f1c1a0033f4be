"""Schemas of what evaluates: students, teachers and protocols. See ``ddoq.config.components``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from ddoq.config.components import Component

# --- student ----------------------------------------------------------------------------------


@dataclass
class ConvNetConf(Component):
    _target_: str = "ddoq.students.ConvNet"
    depth: int = 3
    width: int = 128
    norm: str = "instance"
    pooling: str = "average"
    activation: str = "relu"


@dataclass
class ResNetAPConf(Component):
    _target_: str = "ddoq.students.ResNetAP"
    depth: int = 10
    norm: str = "instance"


@dataclass
class TimmStudentConf(Component):
    """``norm``: ``null`` for the model's own."""

    _target_: str = "ddoq.students.TimmStudent"
    model: str = "resnet18"
    norm: str | None = None
    small_stem: bool = True


# --- teacher ----------------------------------------------------------------------------------


@dataclass
class OwnTeacherConf(Component):
    """A network trained by ddoq on the full train split.

    ``student``, ``protocol``: ``null`` for those of the run.
    """

    _target_: str = "ddoq.labelers.Teacher"
    student: Any = None
    protocol: Any = None


@dataclass
class PretrainedTeacherConf(Component):
    """A classifier of timm or torchvision. ``path``: a local file of weights;
    ``null``: those that timm names.

    ``classes``: what its outputs are: the ``dataset``'s labels, or those of
    ``imagenet``-1K. ``order``: a file that names the class of every output, where they are
    in another order than that.
    """

    _target_: str = "ddoq.labelers.PretrainedTeacher"
    model: str = MISSING
    path: str | None = None
    library: str = "timm"
    classes: str = "imagenet"
    image_size: int | None = None
    order: str | None = None


@dataclass
class CIFARResNetConf(Component):
    """A ResNet for CIFAR from a plain NumPy archive. ``order``: as for pretrained teachers."""

    _target_: str = "ddoq.labelers.CIFARResNet"
    path: str | None = MISSING
    depth: int = 20
    order: str | None = None


@dataclass
class EnsembleConf(Component):
    """Several teachers, by name; their logits are averaged."""

    _target_: str = "ddoq.labelers.Ensemble"
    members: dict[str, Any] = field(default_factory=dict)


# --- protocol ---------------------------------------------------------------------------------


@dataclass
class AugmentationConf:
    """See ``ddoq.evaluation.augment.Augmentation``."""

    patch_shuffle: int = 1
    crop_scale: list[float] | None = None
    shift: int = 0
    flip: bool = False
    color_jitter: float = 0.0
    lighting: float = 0.0
    dsa: str = ""
    cutmix: float = 0.0
    mixup: float = 0.0
    mix_probability: float = 1.0


@dataclass
class WeightsConf:
    """See ``ddoq.evaluation.weights.WeightUse``."""

    use: str = "loss"
    normalize: str = "class"
    mixed: str = "both"


@dataclass
class RuleConf:
    """Values for some sizes of data set: see ``ddoq.evaluation.protocol.Rule``."""

    max_ipc: int | None = None
    min_classes: int | None = None
    max_classes: int | None = None
    students: list[str] | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    image_size: int | None = None
    cosine_length: float | None = None


@dataclass
class ProtocolConf(Component):
    """See ``ddoq.evaluation.protocol.Protocol``."""

    _target_: str = "ddoq.evaluation.protocol.Protocol"
    source: str = ""
    epochs: int | None = None
    num_steps: int | None = None
    batch_size: int = MISSING
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4
    decay: str = "all"
    momentum: float = 0.9
    nesterov: bool = False
    schedule: str = "cosine"
    schedule_by: str = "step"
    cosine_length: float = 1.0
    milestones: list[float] = field(default_factory=list)
    milestone_factor: float = 0.1
    reset_at_milestones: bool = False
    labels: str = "hard"
    loss: str = "kl"
    temperature: float = 1.0
    hard_share: float = 0.0
    augmentation: AugmentationConf = field(default_factory=AugmentationConf)
    weights: WeightsConf = field(default_factory=WeightsConf)
    rules: list[RuleConf] = field(default_factory=list)
    norm: str | None = None
    image_size: int | None = None
    test_crop: float = 1.0
    normalization: str = "dataset"
    precision: str = "float32"
    num_evaluations: int = 10
    evaluate_from: float = 0.0
    selection: str = "last"
    num_seeds: int = 5
    redraw: bool = False
