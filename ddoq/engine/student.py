"""Train one student on a weighted set and measure it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ddoq.data.distilled import TrainingSet
from ddoq.data.floats import as_floats
from ddoq.engine.trainer import fit_steps
from ddoq.errors import StageError
from ddoq.evaluation.losses import hard_loss, soft_loss
from ddoq.evaluation.metrics import classification_metrics
from ddoq.evaluation.protocol import Protocol
from ddoq.evaluation.views import Views

_TEST_BATCH = 500


class Normalize(nn.Module):
    """Maps pixels in [0, 1] to zero mean and unit variance, per channel,
    by the statistics of a data set.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return floats of the same shape."""
        return (images - self.mean) / self.std


class ViewMaker(nn.Module):
    """Makes the views of a step from images that live on the device:
    uint8, so that they fit there, or float32.

    A batch is ``{"rows": image numbers [B], "draws": random numbers}``: all that
    travels to the device.
    """

    def __init__(self, images: Tensor, protocol: Protocol, normalize: Normalize):
        super().__init__()
        self.augmentation, self.normalize = protocol.augmentation, normalize
        self.register_buffer("images", images, persistent=False)

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """Return mixed views ``[B, C, H, W]`` in [0, 1]."""
        images = as_floats(self.images[batch["rows"]])
        views = self.augmentation.views(
            images, batch["draws"], self.normalize.mean, self.normalize.std
        )
        return self.augmentation.mix(views, batch["draws"])


class StudentModule(L.LightningModule):
    """Trains a student with the weighted loss ``(1/B) sum_i w_i * loss_i`` of a protocol.

    A training batch is that of ``ViewMaker``, with the teacher's logits in ``stored`` where they
    were stored; a validation batch is ``(uint8 images, labels)``. ``history`` collects, at each
    evaluation, the ``step``, the accuracy ``top1`` and the mean training ``loss`` since the one
    before; ``logits`` holds those of the last one.

    Args:
        network: maps normalised images to logits.
        data: what to train on.
        protocol: resolved.
        normalize: of the student's inputs.
        teacher: labels every view; ``None`` where labels are hard, fixed or stored.
    """

    def __init__(
        self,
        network: nn.Module,
        data: TrainingSet,
        protocol: Protocol,
        normalize: Normalize,
        teacher: nn.Module | None = None,
    ):
        super().__init__()
        self.network = network
        self.protocol = protocol
        self.normalize = normalize
        self.teacher = teacher
        self.views, self.num_images = ViewMaker(data.images, protocol, normalize), len(data.images)
        self.temperature = data.temperature
        weights = set_weights(data, protocol)
        in_loss = protocol.weights.use == "loss"
        self.register_buffer(
            "weights", weights if in_loss else torch.ones_like(weights), persistent=False
        )
        self.register_buffer("targets", data.targets, persistent=False)
        self.register_buffer("loss_sum", torch.tensor(0.0), persistent=False)
        self.history: list[dict[str, float]] = []
        self.logits = self.labels = torch.empty(0)
        self._parts: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: Mapping[str, Any], step: int) -> Tensor:
        """Return the weighted loss of the batch."""
        views = self.views(batch)
        targets, weights = self.targets[batch["rows"]], self.weights[batch["rows"]]
        if "partner" in batch["draws"]:
            draws = batch["draws"]
            targets, weights = self.protocol.weights.mix(
                targets, weights, draws["partner"], draws["share"]
            )
        losses = self._losses(
            self.network(self.normalize(views)), targets, views, batch.get("stored")
        )
        loss = (self.protocol.weights.of_batch(weights) * losses).mean()
        # The sum stays on the device: asking for its value would wait for every step.
        self.loss_sum += loss.detach()
        return loss

    def _losses(
        self, logits: Tensor, targets: Tensor, views: Tensor, stored: Tensor | None
    ) -> Tensor:
        if stored is None and self.teacher is None:
            return hard_loss(logits / self.temperature, targets)
        if stored is None:
            stored = self.teacher(views)
        losses = soft_loss(
            logits, stored.to(logits.dtype), self.protocol.loss, self.protocol.temperature
        )
        return (
            losses + self.protocol.hard_share * hard_loss(logits, targets)
            if self.protocol.hard_share
            else losses
        )

    def on_train_batch_start(self, *_) -> None:
        """Let the optimizer forget, where the protocol wants that at milestones."""
        if not self.protocol.reset_at_milestones:
            return
        step = self.global_step
        before, now = (
            self.protocol.milestones_passed(s, self.num_images) for s in (step - 1, step)
        )
        if before != now:
            self.optimizers().optimizer.state.clear()

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Collect the student's logits."""
        images, labels = batch
        self._parts.append((self.network(self.normalize(images.float() / 255)).float(), labels))

    def on_validation_epoch_end(self) -> None:
        """Keep the accuracy, as a fraction, and the loss.

        Raises:
            StageError: a loss was NaN or infinite.
        """
        num_steps = self.global_step - (self.history[-1]["step"] if self.history else 0)
        loss = self.loss_sum.item() / num_steps
        self.loss_sum.zero_()
        if not math.isfinite(loss):
            raise StageError(
                "evaluate: the student's loss became NaN or infinite",
                "lower protocol.learning_rate, or look at the teacher's labels",
            )
        logits, labels = zip(*self._parts, strict=True)
        self.logits, self.labels = torch.cat(logits).cpu(), torch.cat(labels).cpu()
        top1 = (self.logits.argmax(1) == self.labels).double().mean().item()
        self.history.append({"step": self.global_step, "top1": top1, "loss": loss})
        self._parts.clear()

    def configure_optimizers(self) -> dict:
        """The protocol's optimizer and learning rates."""
        optimizer = self.protocol.build_optimizer(self.network)
        rates = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.protocol.rate(step, self.num_images)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}


def set_weights(data: TrainingSet, protocol: Protocol) -> Tensor:
    """Return the weights ``[n]`` of a set, normalised as the protocol asks for."""
    return protocol.weights.of_set(data.weights, data.labels, data.counts)


class _Slices(Dataset):
    """Batches of consecutive test images."""

    def __init__(self, images: Tensor, labels: Tensor):
        self.parts = list(zip(images.split(_TEST_BATCH), labels.split(_TEST_BATCH), strict=True))

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        return self.parts[number]


def train_student(
    network: nn.Module,
    data: TrainingSet,
    test: tuple[Tensor, Tensor],
    protocol: Protocol,
    normalize: Normalize,
    seed: int,
    accelerator: str,
    *,
    teacher: nn.Module | None = None,
    stored: Callable[[Tensor, Tensor], Tensor] | None = None,
    views_seed: int | None = None,
) -> dict[str, Any]:
    """Train ``network`` in place; return its measures, accuracies as fractions.

    Args:
        network: freshly initialised.
        data: what to train on.
        test: uint8 images ``[n, C, H, W]`` and labels ``[n]``.
        protocol: resolved.
        normalize: first layer of the student.
        seed: of the order and the augmentation.
        accelerator: Lightning's.
        teacher: labels every view. See ``ddoq.labelers.Teacher``.
        stored: returns the stored logits ``[B, C]`` of views, given image numbers and epochs.
        views_seed: instead of ``seed``, where views are those that were labelled before.

    Returns:
        ``top1`` at the end and ``top1_best``, the ``accuracies`` along the way, the ``history`` of
        ``StudentModule``, and the other measures of ``ddoq.evaluation.metrics`` at the end.
    """
    module = StudentModule(network, data, protocol, normalize, teacher)
    seed = seed if views_seed is None else views_seed
    views = Views(
        protocol, len(data.images), data.images.shape[-1], seed, set_weights(data, protocol)
    )

    def make_batch(step: int) -> dict[str, Any]:
        rows, epochs = views.places(step)
        labels = {} if stored is None else {"stored": stored(rows, epochs)}
        return {"rows": rows, "draws": views.draws(step)} | labels

    fit_steps(
        module,
        make_batch,
        protocol.evaluation_steps(len(data.images)),
        title="train student",
        accelerator=accelerator,
        validation=DataLoader(_Slices(*test), batch_size=None),
        precision="bf16-mixed" if protocol.precision == "bfloat16" else "32-true",
    )
    measures = classification_metrics(module.logits, module.labels)
    accuracies = [point["top1"] for point in module.history]
    return measures | {
        "top1_best": max(accuracies),
        "accuracies": accuracies,
        "history": module.history,
    }
