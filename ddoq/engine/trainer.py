"""Trainers without noise, steps that can be resumed exactly,
and batches that are written as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.callbacks import BasePredictionWriter
from torch.utils.data import DataLoader, Dataset, default_collate

from ddoq.engine.quiet import quiet
from ddoq.utils.console import progress_bar
from ddoq.utils.device import cuda_index
from ddoq.utils.handover import Batches
from ddoq.utils.io import atomic_path


def make_trainer(accelerator: str, **options: Any) -> L.Trainer:
    """Return a quiet trainer on this process's device:
    no logger, no checkpoints and no files but those asked for.

    It does not look for company: processes that compute together share out the work before
    (``ddoq.engine.ranks``).
    """
    quiet()
    defaults = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    index = cuda_index(accelerator)
    devices = 1 if index is None else [index]
    return L.Trainer(
        accelerator=accelerator,
        devices=devices,
        plugins=LightningEnvironment(),
        **defaults | options,
    )


class Steps(Dataset):
    """Steps ``first`` to ``last`` (excluded); item ``i`` is the batch of step ``first + i``."""

    def __init__(self, make_batch: Callable[[int], Any], first: int, last: int):
        self.make_batch, self.first, self.last = make_batch, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, i: int) -> Any:
        return self.make_batch(self.first + i)


class _Epochs(L.LightningDataModule):
    """Cuts the steps into epochs; asked again for each epoch,
    so that a resumed fit starts with the right one.
    """

    def __init__(
        self, make_batch: Callable[[int], Any], ends: Sequence[int], validation: DataLoader | None
    ):
        super().__init__()
        self.make_batch, self.ends, self.validation = make_batch, [0, *ends], validation

    def train_dataloader(self) -> DataLoader:
        first, last = self.ends[self.trainer.current_epoch :][:2]
        return DataLoader(Steps(self.make_batch, first, last), batch_size=None, shuffle=False)

    def val_dataloader(self) -> DataLoader | list:
        return self.validation if self.validation is not None else []


class _Progress(L.Callback):
    def __init__(self, bar):
        self.bar = bar

    def on_train_start(self, trainer, module) -> None:
        self.bar.to(trainer.global_step)

    def on_train_batch_end(self, trainer, *_) -> None:
        self.bar.advance()


class _SaveLast(L.Callback):
    """Writes one checkpoint per epoch, atomically."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_epoch_end(self, trainer, module) -> None:
        with atomic_path(self.path) as temporary:
            trainer.save_checkpoint(temporary)


def even_ends(num_steps: int, num_parts: int) -> list[int]:
    """Return after how many steps each of equal parts ends."""
    return [(part + 1) * num_steps // num_parts for part in range(num_parts)]


def fit_steps(
    module: L.LightningModule,
    make_batch: Callable[[int], Any],
    ends: Sequence[int],
    *,
    title: str,
    accelerator: str,
    checkpoint: Path | None = None,
    validation: DataLoader | None = None,
    **options: Any,
) -> None:
    """Train, step ``s`` on ``make_batch(s)``.

    A batch is a function of the step alone, so a killed fit that resumes at its last epoch ends
    with the same weights as an undisturbed one.

    Args:
        module: trained in place.
        make_batch: returns a batch on the CPU.
        ends: after how many steps each part of the fit ends, in ascending order; a checkpoint and a
            validation after each. The last one is the number of steps.
        title: of the progress bar.
        accelerator: Lightning's.
        checkpoint: file to save to and to resume from;
            ``None`` for fits that are too short to resume.
        validation: a data loader.
        options: of the trainer, e.g. ``gradient_clip_val`` or ``precision``.
    """
    with progress_bar(title, ends[-1]) as bar:
        callbacks = [_Progress(bar)] + ([_SaveLast(checkpoint)] if checkpoint else [])
        trainer = make_trainer(
            accelerator,
            max_epochs=len(ends),
            callbacks=callbacks,
            reload_dataloaders_every_n_epochs=1,
            **options,
        )
        resume = checkpoint if checkpoint is not None and checkpoint.exists() else None
        epochs = _Epochs(make_batch, ends, validation)
        trainer.fit(
            module, datamodule=epochs, ckpt_path=resume, weights_only=True if resume else None
        )


class _BatchItems(Dataset):
    def __init__(self, items: Dataset, batches: Sequence[Sequence[int]]):
        self.items, self.batches = items, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Any:
        return default_collate([self.items[i] for i in self.batches[number]])


class _Predictor(L.LightningModule):
    def __init__(self, function: Callable[[Any], torch.Tensor], network: torch.nn.Module):
        super().__init__()
        self.function, self.network = function, network

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.function(batch)


class _StreamingWriter(BasePredictionWriter):
    def __init__(self, promised: Batches, write: Callable[[Any, torch.Tensor], None], bar):
        super().__init__(write_interval="batch")
        self.promised, self.write, self.bar = promised, write, bar

    def write_on_batch_end(
        self, trainer, module, prediction, batch_indices, batch, batch_idx, dataloader_idx
    ) -> None:
        self.write(batch, self.promised.check(prediction, batch))
        self.bar.advance()


def predict(
    function: Callable[[Any], torch.Tensor],
    network: torch.nn.Module,
    batches: Dataset,
    promised: Batches,
    write: Callable[[Any, torch.Tensor], None],
    *,
    title: str,
    accelerator: str,
    num_workers: int = 0,
) -> None:
    """Apply ``function`` to batches, check each result and hand it to ``write`` at once;
    nothing accumulates.

    Args:
        function: maps a batch, already on the device, to predictions.
        network: what ``function`` uses; moved to the device.
        batches: map-style data set of batches.
        promised: what predictions are; all outputs of networks
            that become artefacts are checked here.
        write: takes the batch and its predictions.
        title: of the progress bar.
        accelerator: Lightning's.
        num_workers: processes that load batches.
    """
    if not len(batches):
        return
    loader = DataLoader(batches, batch_size=None, num_workers=num_workers)
    with progress_bar(title, len(batches)) as bar:
        trainer = make_trainer(accelerator, callbacks=[_StreamingWriter(promised, write, bar)])
        trainer.predict(_Predictor(function, network), loader, return_predictions=False)


def predict_batches(
    function: Callable[[Any], torch.Tensor],
    network: torch.nn.Module,
    items: Dataset,
    batches: Sequence[Sequence[int]],
    promised: Batches,
    write: Callable[[Any, torch.Tensor], None],
    **options: Any,
) -> None:
    """Apply ``function`` to collated batches of ``items``, given the item numbers of each.

    See ``predict``.
    """
    predict(function, network, _BatchItems(items, batches), promised, write, **options)
