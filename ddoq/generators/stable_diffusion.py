"""Stable Diffusion, conditioned on a prompt per class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ddoq.errors import ConfigError
from ddoq.generators.diffusion import LatentDiffusion
from ddoq.utils.pretrained import load_pretrained, load_text_encoder


@dataclass(kw_only=True)
class StableDiffusion(LatentDiffusion):
    """Image-to-image from a latent, without decoding and encoding it again
    (Rombach et al. 2022; D4M's generator).

    Works with every model that has one CLIP text encoder (Stable Diffusion 1.x and 2.x). There is
    no safety checker: it would replace images of a training set by black ones.

    Args:
        prompt: with ``{name}`` (``tench``) or ``{synonyms}``
            (``tench, Tinca tinca``, which is D4M's whole prompt).
        negative_prompt: what guidance moves away from; D4M's is ``cartoon, anime, painting``.
    """

    prompt: str = "{synonyms}"
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network.config.addition_embed_type is not None:
            raise ConfigError(
                f"generator.path: {self.path} needs more than one text embedding "
                "(Stable Diffusion XL)",
                "use a Stable Diffusion 1.x or 2.x model",
            )
        self.tokenizer, self.text_encoder = load_text_encoder(
            self.path, "generator.path", self.precision
        )
        self._embeddings: dict[str, Tensor] = {}  # each prompt goes through the text encoder once

    def _load(self) -> nn.Module:
        return load_pretrained(
            self.path, ("UNet2DConditionModel",), "unet", "generator.path", self.precision
        )

    def networks(self) -> nn.Module:
        """See ``ImageGenerator.networks``."""
        return nn.ModuleList([super().networks(), self.text_encoder])

    def prompt_of(self, label: int) -> str:
        """Return the prompt of a class."""
        return self.prompt.format(
            name=self.label_space.names[label], synonyms=self.label_space.synonyms[label]
        )

    def conditions(self, labels: Tensor) -> Tensor:
        """Return text embeddings ``[B, tokens, width]``."""
        return self._embed([self.prompt_of(label) for label in labels.tolist()])

    def unconditional(self, num: int) -> Tensor:
        """Return the embedding of the negative prompt ``num`` times."""
        return self._embed([self.negative_prompt] * num)

    def _embed(self, prompts: list[str]) -> Tensor:
        device = self.text_encoder.device
        for prompt in sorted(set(prompts) - set(self._embeddings)):
            tokens = self.tokenizer(
                prompt,
                padding="max_length",
                truncation=True,
                max_length=self.tokenizer.model_max_length,
                return_tensors="pt",
            )
            self._embeddings[prompt] = self.text_encoder(tokens.input_ids.to(device))[0][0]
        return torch.stack([self._embeddings[prompt] for prompt in prompts]).to(device)

    def predict(self, sample: Tensor, time: Tensor, conditions: Tensor) -> Tensor:
        """See ``LatentDiffusion.predict``."""
        return self.network(sample, time, encoder_hidden_states=conditions).sample
