"""Schemas of the components: what is instantiated, one dataclass per choice of a group.

Fields mirror the constructor (``tests/config/test_config.py`` holds them together), so a typo is
rejected when the configuration is composed, before anything runs or is submitted.
``name`` is what tables say.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class Component:
    """Something that is instantiated."""

    name: str = MISSING
    _target_: str = MISSING


# --- encoder ----------------------------------------------------------------------------------


@dataclass
class VAEFit:
    """A small diffusers ``AutoencoderKL`` fitted on the train split.

    See ``ddoq.stages.fit_encoder``.
    """

    block_out_channels: list[int] = field(default_factory=lambda: [32, 64])
    latent_channels: int = 4
    num_steps: int = 500
    batch_size: int = 128
    learning_rate: float = 2e-3
    kl_weight: float = 1e-4
    seed: int = 0


@dataclass
class PixelsConf(Component):
    _target_: str = "ddoq.encoders.Pixels"


@dataclass
class VAEConf(Component):
    """``path: null`` fits a VAE by ``fit``."""

    _target_: str = "ddoq.encoders.VAE"
    path: str | None = None
    posterior: str = "mode"
    precision: str = "float32"
    storage: str = "float32"
    fit: VAEFit = field(default_factory=VAEFit)


@dataclass
class TAEF2Conf(Component):
    _target_: str = "ddoq.encoders.TAEF2"
    path: str | None = "vae_taef2"
    storage: str = "float32"


# --- quantizer, space and weighting -----------------------------------------------------------


@dataclass
class KMeansConf(Component):
    _target_: str = "ddoq.quantizers.KMeans"
    num_restarts: int = 10
    max_iterations: int = 300
    start: str = "auto"
    search: str = "auto"


@dataclass
class SklearnKMeansConf(Component):
    _target_: str = "ddoq.quantizers.SklearnKMeans"
    num_restarts: int = 10
    max_iterations: int = 300


@dataclass
class FaissKMeansConf(Component):
    _target_: str = "ddoq.quantizers.FaissKMeans"
    num_restarts: int = 10
    num_iterations: int = 25
    gpu: bool = False


@dataclass
class BisectingKMeansConf(Component):
    _target_: str = "ddoq.quantizers.BisectingKMeans"
    num_restarts: int = 10


@dataclass
class GaussianMixtureConf(Component):
    _target_: str = "ddoq.quantizers.GaussianMixture"
    num_components: int = 64
    covariance_type: str = "diag"
    num_restarts: int = 1


@dataclass
class CLVQConf(Component):
    _target_: str = "ddoq.quantizers.CLVQ"
    batch_size: int = 256
    num_passes: int = 10
    step_exponent: float = 1.0


@dataclass
class BarycenterConf(Component):
    _target_: str = "ddoq.quantizers.Barycenter"
    num_restarts: int = 1
    max_iterations: int = 100


@dataclass
class D4MConf(Component):
    _target_: str = "ddoq.quantizers.D4M"
    km_expand: int = 1
    leftover: str = "released"


@dataclass
class RandomSubsetConf(Component):
    _target_: str = "ddoq.quantizers.RandomSubset"


@dataclass
class NearestConf(Component):
    _target_: str = "ddoq.quantizers.Nearest"
    num_restarts: int = 10


@dataclass
class HerdingConf(Component):
    _target_: str = "ddoq.quantizers.Herding"


@dataclass
class KCenterConf(Component):
    _target_: str = "ddoq.quantizers.KCenter"


@dataclass
class KMedoidsConf(Component):
    _target_: str = "ddoq.quantizers.KMedoids"
    num_restarts: int = 1


@dataclass
class LatentsConf(Component):
    """The latents as they are."""

    _target_: str = "ddoq.quantizers.space.Latents"


@dataclass
class PCAConf(Component):
    """``representative`` of a cell among the latents:
    ``mean`` of its members, or the ``nearest`` to its centroid.
    """

    _target_: str = "ddoq.quantizers.space.PCA"
    num_components: int = 64
    representative: str = "mean"


@dataclass
class FeaturesConf(Component):
    """A timm model's features.

    ``path``: a local file of weights; ``null``: those that timm names, from the hub.
    """

    _target_: str = "ddoq.encoders.Features"
    model: str = MISSING
    path: str | None = None
    image_size: int | None = None
    representative: str = "mean"


@dataclass
class TeacherSpaceConf(Component):
    """The penultimate features of the run's teacher."""

    _target_: str = "ddoq.labelers.TeacherFeatures"
    representative: str = "mean"


@dataclass
class UniformConf(Component):
    _target_: str = "ddoq.quantizers.Uniform"


@dataclass
class MassConf(Component):
    _target_: str = "ddoq.quantizers.Mass"


@dataclass
class PowerConf(Component):
    _target_: str = "ddoq.quantizers.Power"
    exponent: float = 0.5


@dataclass
class ClipConf(Component):
    _target_: str = "ddoq.quantizers.Clip"
    low: float = 0.5
    high: float = 2.0


@dataclass
class ShrinkConf(Component):
    _target_: str = "ddoq.quantizers.Shrink"
    amount: float = 0.5


# --- generator --------------------------------------------------------------------------------


@dataclass
class DiTFit:
    """A small diffusers ``DiTTransformer2DModel`` fitted on the train latents.

    See ``ddoq.stages.fit_generator``.
    """

    num_layers: int = 4
    num_heads: int = 4
    head_dim: int = 32
    patch_size: int = 2
    num_steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 1e-3
    ema_decay: float = 0.998
    label_dropout: float = 0.1
    beta_schedule: str = "squaredcos_cap_v2"
    prediction_type: str = "v_prediction"
    seed: int = 0


@dataclass
class DecodeConf(Component):
    _target_: str = "ddoq.generators.Decode"


@dataclass
class RealConf(Component):
    _target_: str = "ddoq.generators.Real"


@dataclass
class DiffusionConf(Component):
    """See ``ddoq.generators.LatentDiffusion``."""

    path: str | None = None
    strength: float = 0.5
    guidance_scale: float = 1.5
    num_steps: int = 50
    scheduler: str | None = None
    start: str = "noised"
    mode_guidance: float = 0.0
    mode_stop: float = 0.5
    precision: str = "float32"


@dataclass
class DiTConf(DiffusionConf):
    """``path: null`` fits a DiT by ``fit``. ``order``: a file that names the class of every class
    number, where they are in another order than ``classes`` says.
    """

    _target_: str = "ddoq.generators.DiT"
    classes: str = "dataset"
    guidance_channels: int | None = None
    order: str | None = None
    fit: DiTFit = field(default_factory=DiTFit)


@dataclass
class StableDiffusionConf(DiffusionConf):
    _target_: str = "ddoq.generators.StableDiffusion"
    prompt: str = "{synonyms}"
    negative_prompt: str = ""
