"""The root of the configuration and what is not instantiated:
keys, types and defaults, nothing else.

The components have their schemas in ``ddoq.config.components``,
the data sets in ``ddoq.config.datasets``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypedDict

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from ddoq.config import components, datasets, evaluation, methods


@dataclass
class AblationConf:
    """What is compared on the validation split, one change at a time against the main arm."""

    strengths: list[float] = field(default_factory=list)
    weightings: dict[str, Any] = field(default_factory=dict)
    num_seeds: int = 3


@dataclass
class MeasureConf:
    """What is measured of codebooks beside the accuracy they lead to.

    ``num_folds`` of the cross-fitted distortion (0: none) of each arm's first draw and of the
    curve; ``curve``: the numbers of centroids at which W2 is measured, whatever the ``ipc`` (empty:
    no curve); ``fidelity``: compare images with the training images in the teacher's features.
    """

    num_folds: int = 5
    curve: list[int] = field(default_factory=list)
    fidelity: bool = False


@dataclass
class CompareConf:
    """The same arms on the test split with other ``students``, other ``teachers``,
    other ``labels``, and without ``augmentation``. ``arms``: names of those that are
    compared; ``null`` for all.
    """

    name: str = "none"
    arms: list[str] | None = None
    students: dict[str, Any] = field(default_factory=dict)
    teachers: dict[str, Any] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    augmentation: bool = False


@dataclass
class LoggerConf:
    """``mode``: none, csv, tensorboard, online or offline (both W&B).

    ``project``, ``entity``: of W&B; ``students``: one W&B run for every student of the main table.
    """

    mode: str = "none"
    project: str = "ddoq"
    entity: str | None = None
    students: bool = True


@dataclass
class ResourcesConf:
    """What one job asks SLURM for; ``null``: as ``hydra.launcher`` says."""

    partition: str | None = None
    timeout_min: int | None = None
    nodes: int | None = None
    tasks_per_node: int | None = None
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem_gb: int | None = None
    array_parallelism: int | None = None


@dataclass
class WaveResourcesConf:
    """Resources of a wave, by its last stage: latents, codebooks, images, students."""

    encode: ResourcesConf = field(default_factory=ResourcesConf)
    curve: ResourcesConf = field(default_factory=ResourcesConf)
    generate: ResourcesConf = field(default_factory=ResourcesConf)
    report: ResourcesConf = field(default_factory=ResourcesConf)


@dataclass
class SweepConf:
    """``name``: of the sweep that a run belongs to;
    ``null`` for none, and in a sweep for its default name.

    ``waves``: stages at which the sweep stops until all its points are there; see
    ``ddoq.sweeps.waves``. ``resources``: of the jobs of each wave.
    """

    name: str | None = None
    waves: list[str] = field(default_factory=list)
    resources: WaveResourcesConf = field(default_factory=WaveResourcesConf)


#: ``until``: the last stage; ``from``: compute this stage and those behind it again;
#: ``plan_only``: look, and stop; ``quiet``: print errors only; ``fetch``: download, and stop.
#: No dataclass, and so no schema of Hydra's, can have a ``from``: ``ddoq.config.form`` checks it.
RunConf = TypedDict(
    "RunConf",
    {"until": str, "from": str | None, "plan_only": bool, "quiet": bool, "fetch": bool},
)


@dataclass
class PathsConf:
    """``data`` and ``models``: one folder or a list, searched in order;
    downloads go into the first.

    ``outputs``: everything else.
    """

    data: Any = MISSING
    models: Any = MISSING
    outputs: str = MISSING


@dataclass
class TrainerConf:
    """How to compute, which never changes what is computed (beyond the last bits of a sum).

    ``processes``: how many compute at once on a CPU, each on one core; ``auto``: as many as cores
    and memory allow, one on a GPU and where torchrun or srun start several. ``join_timeout``:
    seconds that those wait for each other at the start.
    """

    accelerator: str = "auto"
    processes: Any = "auto"
    batch_size: int = 64
    num_workers: int = 0
    compile: bool = False
    join_timeout: int = 60


@dataclass
class Config:
    """The root. Groups are filled by the defaults list.

    ``method``: makes the main arm's images in place of quantizer, space, weighting and generator,
    which then only say what others take over. ``run``: see ``RunConf``.
    """

    dataset: Any = MISSING
    encoder: Any = MISSING
    quantizer: Any = MISSING
    space: Any = MISSING
    weighting: Any = MISSING
    generator: Any = MISSING
    method: Any = None
    student: Any = MISSING
    teacher: Any = MISSING
    protocol: Any = MISSING
    baselines: dict[str, Any] = field(default_factory=dict)
    ablation: AblationConf = field(default_factory=AblationConf)
    compare: CompareConf = field(default_factory=CompareConf)
    logger: LoggerConf = field(default_factory=LoggerConf)
    measure: MeasureConf = field(default_factory=MeasureConf)
    ipc: int = MISSING
    allocation: str = "equal"
    split: str = "test"
    on_small_class: str = "error"
    seed: int = MISSING
    run: dict[str, Any] = MISSING
    sweep: SweepConf = field(default_factory=SweepConf)
    paths: PathsConf = field(default_factory=PathsConf)
    trainer: TrainerConf = field(default_factory=TrainerConf)


#: Schema of every choice of every group; a YAML file names its schema in its defaults list.
COMPONENTS: dict[str, dict[str, type]] = {
    "dataset": {
        "digits": datasets.DigitsConf,
        "fashion_mnist": datasets.FashionMNISTConf,
        "cifar10": datasets.CIFAR10Conf,
        "mnist": datasets.MNISTConf,
        "cifar100": datasets.CIFAR100Conf,
        "svhn": datasets.SVHNConf,
        "imagenet1k": datasets.ImageNetConf,
        "tiny_imagenet": datasets.TinyImageNetConf,
        "image_folder": datasets.ImageFolderConf,
        "parquet": datasets.ParquetConf,
    },
    "encoder": {
        "pixels": components.PixelsConf,
        "vae": components.VAEConf,
        "taef2": components.TAEF2Conf,
    },
    "quantizer": {
        "kmeans": components.KMeansConf,
        "kmeans_sklearn": components.SklearnKMeansConf,
        "kmeans_faiss": components.FaissKMeansConf,
        "bisecting": components.BisectingKMeansConf,
        "gmm": components.GaussianMixtureConf,
        "clvq": components.CLVQConf,
        "barycenter": components.BarycenterConf,
        "d4m": components.D4MConf,
        "random": components.RandomSubsetConf,
        "nearest": components.NearestConf,
        "herding": components.HerdingConf,
        "kcenter": components.KCenterConf,
        "kmedoids": components.KMedoidsConf,
    },
    "space": {
        "latents": components.LatentsConf,
        "pca": components.PCAConf,
        "features": components.FeaturesConf,
        "teacher": components.TeacherSpaceConf,
    },
    "weighting": {
        "uniform": components.UniformConf,
        "mass": components.MassConf,
        "power": components.PowerConf,
        "clip": components.ClipConf,
        "shrink": components.ShrinkConf,
    },
    "generator": {
        "dit": components.DiTConf,
        "stable_diffusion": components.StableDiffusionConf,
        "decode": components.DecodeConf,
        "real": components.RealConf,
    },
    "method": {"dm": methods.DMConf},
    "student": {
        "convnet": evaluation.ConvNetConf,
        "resnet_ap": evaluation.ResNetAPConf,
        "timm": evaluation.TimmStudentConf,
    },
    "teacher": {
        "own": evaluation.OwnTeacherConf,
        "pretrained": evaluation.PretrainedTeacherConf,
        "cifar_resnet": evaluation.CIFARResNetConf,
        "ensemble": evaluation.EnsembleConf,
    },
    "protocol": {"protocol": evaluation.ProtocolConf},
}


#: Groups of which nothing has to be chosen.
OPTIONAL = ("method",)


@cache  # once for a process: it costs 0.15 s
def register() -> None:
    """Make the schemas known to Hydra, in a group of their own
    so that they are no choices of the user's.
    """
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config, package="_global_")
    for group, choices in COMPONENTS.items():
        for name, node in choices.items():
            store.store(group=f"schema/{group}", name=name, node=node)
