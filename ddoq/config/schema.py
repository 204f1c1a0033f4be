"""The root of the configuration and what is not instantiated:
keys, types and defaults, nothing else.

What is instantiated has its options in its constructor, see ``ddoq.config.constructors``. OmegaConf
knows no ``Literal``; it passes over what ``Annotated`` adds to a type.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, TypedDict

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from ddoq.config.arms import Allocation
from ddoq.options import Labels, NotNegativeInt, PositiveInt, Share


@dataclass
class AblationConf:
    """What is compared on the validation split, one change at a time against the main arm."""

    strengths: list[Share] = field(default_factory=list)
    weightings: dict[str, Any] = field(default_factory=dict)
    num_seeds: PositiveInt = 3


@dataclass
class MeasureConf:
    """What is measured of codebooks beside the accuracy they lead to.

    ``num_folds`` of the cross-fitted distortion (0: none) of each arm's first draw and of the
    curve; ``curve``: the numbers of centroids at which W2 is measured, whatever the ``ipc`` (empty:
    no curve); ``fidelity``: compare images with the training images in the teacher's features, or
    in those of ``space``; ``redundancy``: test a student of each arm's first images on the next.
    """

    num_folds: int = 5
    curve: list[PositiveInt] = field(default_factory=list)
    fidelity: bool = False
    space: Any = None
    redundancy: bool = False


@dataclass(kw_only=True)
class CompareConf:
    """The same arms on the test split with other ``students``, other ``teachers``,
    other ``labels``, without ``augmentation``, and, of methods that optimise images, on
    their PNGs instead of their floats (``pixels``). ``arms``: names of those that are
    compared; ``null`` for all.
    """

    name: str = "none"
    arms: list[str] | None = None
    students: dict[str, Any] = field(default_factory=dict)
    teachers: dict[str, Any] = field(default_factory=dict)
    labels: list[Annotated[str, Labels]] = field(default_factory=list)
    augmentation: bool = False
    pixels: bool = False


@dataclass
class LoggerConf:
    """``mode``: none, csv, tensorboard, online or offline (both W&B).

    ``project``, ``entity``: of W&B; ``students``: one W&B run for every student of the main table.
    """

    mode: Annotated[str, Literal["none", "csv", "tensorboard", "online", "offline"]] = "none"
    project: str = "ddoq"
    entity: str | None = None
    students: bool = True


@dataclass(kw_only=True)
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


@dataclass(kw_only=True)
class TrainerConf:
    """How to compute, which never changes what is computed (beyond the last bits of a sum).

    ``processes``: how many compute at once on a CPU, each on one core; ``auto``: as many as cores
    and memory allow, one on a GPU and where torchrun or srun start several. ``join_timeout``:
    seconds that those wait for each other at the start.
    """

    accelerator: Annotated[str, Literal["auto", "cpu", "gpu", "mps"]] = "auto"
    processes: Any = "auto"
    batch_size: PositiveInt = 64
    num_workers: NotNegativeInt = 0
    compile: bool = False
    join_timeout: PositiveInt = 60


@dataclass(kw_only=True)
class Config:
    """The root. Groups are filled by the defaults list.

    ``method``: makes the main arm's images in place of quantizer, space, weighting, generator,
    guidance and selection, which then only say what others take over. ``guidances``: more than the
    one of the group. ``run``: see ``RunConf``.
    """

    dataset: Any = MISSING
    encoder: Any = MISSING
    quantizer: Any = MISSING
    space: Any = MISSING
    weighting: Any = MISSING
    generator: Any = MISSING
    guidance: Any = field(default_factory=dict)
    guidances: dict[str, Any] = field(default_factory=dict)
    selection: Any = MISSING
    method: Any = None
    student: Any = MISSING
    teacher: Any = MISSING
    protocol: Any = MISSING
    baselines: dict[str, Any] = field(default_factory=dict)
    ablation: AblationConf = field(default_factory=AblationConf)
    compare: CompareConf = field(default_factory=CompareConf)
    logger: LoggerConf = field(default_factory=LoggerConf)
    measure: MeasureConf = field(default_factory=MeasureConf)
    ipc: PositiveInt = MISSING
    allocation: Annotated[str, Allocation] = "equal"
    split: Annotated[str, Literal["test", "validation"]] = "test"
    on_small_class: Annotated[str, Literal["error", "duplicate"]] = "error"
    seed: NotNegativeInt = MISSING
    run: dict[str, Any] = MISSING
    sweep: SweepConf = field(default_factory=SweepConf)
    paths: PathsConf = field(default_factory=PathsConf)
    trainer: TrainerConf = field(default_factory=TrainerConf)


@cache  # once for a process
def register() -> None:
    """Make the root known to Hydra, in a group of its own so that it is no choice of the user's."""
    ConfigStore.instance().store(group="schema", name="config", node=Config, package="_global_")
