"""Class-conditional diffusion transformers: those that ddoq fits, and DiT-XL/2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ddoq.data.class_order import outputs_of_classes
from ddoq.generators.diffusion import LatentDiffusion
from ddoq.generators.released import describe, load_released
from ddoq.guidances.base import Embedding
from ddoq.options import FileOf, Fraction, NotNegativeInt, OfStages, PositiveFloat, PositiveInt
from ddoq.utils.pretrained import load_pretrained


@dataclass(kw_only=True)
class DiTFit:
    """A small diffusers ``DiTTransformer2DModel`` fitted on the train latents.

    See ``ddoq.stages.fit_generator``.

    Args:
        num_layers: transformer blocks.
        num_heads: attention heads of a block.
        head_dim: width of a head.
        patch_size: side of a patch of latents; it divides their side.
        num_steps: gradient steps.
        batch_size: latents per step.
        learning_rate: of AdamW at its highest; a cosine takes it to 0.
        ema_decay: of the averaged weights, which are kept.
        label_dropout: share of latents without a class, for guidance.
        beta_schedule: of the noise.
        prediction_type: what the network predicts.
        seed: of initial weights, batches and noise.
    """

    num_layers: PositiveInt = 4
    num_heads: PositiveInt = 4
    head_dim: PositiveInt = 32
    patch_size: PositiveInt = 2
    num_steps: PositiveInt = 2000
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 1e-3
    ema_decay: Fraction = 0.998
    label_dropout: Fraction = 0.1
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "squaredcos_cap_v2"
    prediction_type: Literal["v_prediction", "epsilon", "sample"] = "v_prediction"
    seed: NotNegativeInt = 0


@dataclass(kw_only=True)
class DiT(LatentDiffusion):
    """Peebles & Xie 2023, through diffusers' ``DiTTransformer2DModel``.

    ``path`` may also be the file that its authors released, see ``ddoq.generators.released``.

    Guidance: diffusers guides all four latent channels, the DiT repository three. Its 4.0 is about
    3.25 here (1 + 0.75 x for the x of its ``1 + x``), or exactly 4.0 with ``guidance_channels=3``.

    Args:
        classes: what the model's class numbers mean: ``dataset``, the labels; ``imagenet``,
            ImageNet-1K indices, to which labels are mapped by WordNet id.
        order: the class that each class number means, by name,
            where it is not what ``classes`` says.
        guidance_channels: guide only this many of the latent channels; ``None`` for all.
        fit: the network that is fitted where there is no ``path``.
    """

    classes: Literal["dataset", "imagenet"] = "dataset"
    guidance_channels: PositiveInt | None = None
    order: FileOf[Sequence[str]] | None = None
    fit: OfStages[DiTFit] = DiTFit()

    def __post_init__(self) -> None:
        super().__post_init__()
        num_embeddings = self.network.config.num_embeds_ada_norm
        if self.order is None:
            numbers = self.label_space.class_numbers(self.classes, num_embeddings, self.path)
        else:
            numbers = outputs_of_classes(
                self.order, self.label_space, num_embeddings, "generator.order"
            )
        self._numbers = torch.tensor(numbers)

    def _load(self) -> nn.Module:
        if Path(self.path).is_file():
            return load_released(self.path, "generator.path", self.precision)
        return load_pretrained(
            self.path, ("DiTTransformer2DModel",), "transformer", "generator.path", self.precision
        )

    def _saved_schedule(self) -> Mapping[str, Any]:
        if Path(self.path).is_file():
            return describe(self.path, "generator.path")["scheduler"]
        return super()._saved_schedule()

    def conditions(self, labels: Tensor) -> Tensor:
        """Return the model's class numbers ``[B]``."""
        return self._numbers.to(labels.device)[labels]

    def unconditional(self, num: int) -> Tensor:
        """Return the null class ``num`` times."""
        return torch.full(
            (num,), self.network.config.num_embeds_ada_norm, device=self.network.device
        )

    def predict(self, sample: Tensor, time: Tensor, conditions: Tensor) -> Tensor:
        """See ``LatentDiffusion.predict``."""
        return self.network(sample, timestep=time, class_labels=conditions).sample

    @contextmanager
    def embedding(self, replace: Embedding) -> Iterator[None]:
        """See ``LatentDiffusion.embedding``; every block has an embedding of its own."""
        handles = [
            module.register_forward_hook(
                lambda module, _, embedded: replace(embedded, module.embedding_table.weight)
            )
            for module in self.network.modules()
            if hasattr(module, "embedding_table")
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Guide the first ``guidance_channels`` channels, or all."""
        guided = super().guide(conditional, unconditional, scale)
        if self.guidance_channels is None:
            return guided
        return torch.cat(
            [guided[:, : self.guidance_channels], conditional[:, self.guidance_channels :]], 1
        )
