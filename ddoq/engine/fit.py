"""Lightning modules of the models that ddoq fits itself: the diffusion transformer and the VAE."""

from __future__ import annotations

import math

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def cosine_schedule(optimizer: torch.optim.Optimizer, num_steps: int, warmup: int = 0) -> dict:
    """Return Lightning's description of a per-step linear warm-up and cosine decay to zero."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (
            1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, num_steps - warmup)))
        )

    return {
        "optimizer": optimizer,
        "lr_scheduler": {
            "scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor),
            "interval": "step",
        },
    }


class DenoiserModule(L.LightningModule):
    """Fits a class-conditional denoiser with the loss its scheduler's ``prediction_type`` asks for.

    A batch is ``(clean latents, labels, noise, times)``. ``average`` holds the exponential moving
    average of the weights, which is what generates.
    """

    def __init__(
        self,
        transformer: nn.Module,
        scheduler,
        num_steps: int,
        learning_rate: float,
        ema_decay: float,
    ):
        super().__init__()
        self.transformer, self.scheduler = transformer, scheduler
        self.num_steps, self.learning_rate = num_steps, learning_rate
        self.average = AveragedModel(transformer, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor, Tensor], _: int) -> Tensor:
        """Return the mean squared error of the prediction."""
        clean, labels, noise, times = batch
        noisy = self.scheduler.add_noise(clean, noise, times)
        target = {
            "epsilon": lambda: noise,
            "sample": lambda: clean,
            "v_prediction": lambda: self.scheduler.get_velocity(clean, noise, times),
        }
        predicted = self.transformer(noisy, timestep=times, class_labels=labels).sample
        return mse_loss(predicted, target[self.scheduler.config.prediction_type]())

    def on_train_batch_end(self, *_) -> None:
        """Follow the weights."""
        self.average.update_parameters(self.transformer)

    def configure_optimizers(self) -> dict:
        """AdamW, warm-up over 5 % of the steps, cosine decay."""
        optimizer = torch.optim.AdamW(
            self.transformer.parameters(), self.learning_rate, weight_decay=0.0, fused=True
        )
        return cosine_schedule(optimizer, self.num_steps, warmup=max(1, self.num_steps // 20))


class VAEModule(L.LightningModule):
    """Fits a diffusers ``AutoencoderKL``: ``|x - D(z)|^2 + kl_weight * KL(q(z|x) || N(0, I))``,
    per-pixel means.

    A batch is ``(images, noise)``; the noise samples the posterior.
    """

    def __init__(self, vae: nn.Module, num_steps: int, learning_rate: float, kl_weight: float):
        super().__init__()
        self.vae, self.num_steps = vae, num_steps
        self.learning_rate, self.kl_weight = learning_rate, kl_weight

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the evidence lower bound's negative, up to constants."""
        images, noise = batch
        posterior = self.vae.encode(images).latent_dist
        decoded = self.vae.decode(posterior.mean + posterior.std * noise).sample
        return (
            mse_loss(decoded, images) + self.kl_weight * posterior.kl().mean() / images[0].numel()
        )

    def configure_optimizers(self) -> dict:
        """AdamW, warm-up over 5 % of the steps, cosine decay."""
        optimizer = torch.optim.AdamW(
            self.vae.parameters(), self.learning_rate, weight_decay=0.0, fused=True
        )
        return cosine_schedule(optimizer, self.num_steps, warmup=max(1, self.num_steps // 20))
