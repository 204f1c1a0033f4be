"""Optimise images by the steps of a method."""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor

from ddoq.distillers import Batch, Distiller, Task
from ddoq.distillers.base import Closure
from ddoq.distillers.features import graph_bytes
from ddoq.engine.trainer import even_ends
from ddoq.errors import StageError

_PROBED = 8  # images, of which the memory of all follows


def network_bytes(task: Task) -> int:
    """Return the bytes of the networks that live through the steps, and of a fresh one."""
    networks = (task.networks, task.network("memory"))
    return sum(part.nbytes for network in networks for part in network.state_dict().values())


def step_bytes(method: Distiller, task: Task) -> int:
    """Return about how many bytes a step needs: the training images, the networks, and what a
    network makes of the images on their way.
    """
    images = task.normalized(torch.arange(2 * _PROBED) % len(task.images))
    network, num = task.network("memory"), method.num_in_graph(task)
    # the difference, for some of what is held does not grow with the images
    more = graph_bytes(network, images) - graph_bytes(network, images[:_PROBED])
    return task.images.nbytes + network_bytes(task) + more * num // _PROBED


def require_memory(needed: int, num_images: int, free: int) -> None:
    """Raise StageError where a step needs more bytes than are free; see ``step_bytes``."""
    if needed > free:
        raise StageError(
            f"distill: a step with {num_images:,} images at once needs about "
            f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            "lower ipc or method.partition, take a narrower student, or a larger device",
        )


class DistillModule(L.LightningModule):
    """Optimises ``task.synthetic``, a step for each batch.

    A checkpoint holds the images, the optimizer's state, the networks that live through the steps
    and the losses; all else is a function of seed and step. A step may hand over several losses:
    ``losses`` ``[num_steps]`` has their sums.

    Args:
        method: says what a step is.
        task: begun, see ``Distiller.begin``.
    """

    def __init__(self, method: Distiller, task: Task):
        super().__init__()
        self.automatic_optimization = False
        self.method, self.task = method, task
        self.register_buffer("losses", torch.zeros(method.num_steps))
        self._step = 0

    def training_step(self, batch: Batch, _: int) -> None:
        """Let the method make a step."""
        self._step = batch.step
        batch = self.method.by_importance(self.task, batch)
        batch = self.method.by_influence(self.task, batch)
        self.method.step(self.task, batch, self._update)

    def _update(self, *closures: Closure) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        for closure in closures:
            loss = closure()
            self.manual_backward(loss, inputs=list(self.task.synthetic.parameters()))
            # stays on the device: asking for its value would wait for every step
            self.losses[self._step] += loss.detach()
        optimizer.step()

    def on_train_batch_end(self, *_) -> None:
        """Look at the losses and the images before each checkpoint.

        Raises:
            StageError: a loss, or a pixel, became NaN or infinite.
        """
        if self.trainer.is_last_batch:
            _require_finite(self.losses[: self._step + 1], self.task.synthetic(), self.method)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The method's."""
        return self.method.optimizer(self.task.synthetic)

    def history(self, num_points: int = 50) -> tuple[list[int], list[float]]:
        """Return after how many steps each of equal parts ended, and its mean loss."""
        ends = even_ends(len(self.losses), min(num_points, len(self.losses)))
        starts = [0, *ends][: len(ends)]
        losses = self.losses.cpu().double()
        means = [losses[a:b].mean().item() for a, b in zip(starts, ends, strict=True)]
        return ends, means


def _require_finite(losses: Tensor, images: Tensor, method: Distiller) -> None:
    """Raise StageError where a loss ``[steps so far]`` or a pixel is NaN or infinite."""
    if losses.isfinite().all() and images.isfinite().all():
        return
    broken = (~losses.isfinite()).nonzero().flatten().tolist()
    step = broken[0] if broken else len(losses) - 1
    raise StageError(
        f"distill: the loss became NaN or infinite at step {step} of {method.num_steps} "
        f"(method.learning_rate={method.learning_rate:g})",
        f"lower it, e.g. method.learning_rate={method.learning_rate / 10:g}",
    )
