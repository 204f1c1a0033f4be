"""The training that surrogates are kept from."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from ddoq.data.floats import as_floats
from ddoq.guidances.influence import class_gradient
from ddoq.utils.io import atomic_path


class SurrogateModule(L.LightningModule):
    """Trains a classifier and keeps it where its gradients have turned.

    A batch is ``(uint8 images, labels)``. At the end of each epoch the gradients of real images of
    some classes are compared with those of the network that was kept last; the first epoch's is
    kept in any case. What is kept is on disk: a training that was killed goes on from there.

    Args:
        network: maps images in [0, 1] to logits.
        learning_rate: of SGD with momentum 0.9.
        similarity: the cosine below which a network is kept.
        most: networks that are kept.
        real: uint8 images of the compared classes, by label.
        folder: where the kept ones are written.
    """

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float,
        similarity: float,
        most: int,
        real: dict[int, Tensor],
        folder: Path,
    ):
        super().__init__()
        self.network, self.learning_rate = network, learning_rate
        self.similarity, self.most, self.real, self.folder = similarity, most, real, folder
        self._last: Tensor | None = None  # gradients of the one kept last ``[classes, P]``

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the mean cross entropy."""
        images, labels = batch
        return cross_entropy(self.network(as_floats(images)), labels)

    def on_train_batch_end(self, *_) -> None:
        """Compare at the end of each epoch, before its checkpoint."""
        if self.trainer.is_last_batch and len(kept_surrogates(self.folder)) < self.most:
            self._keep(self.trainer.current_epoch)

    def _keep(self, epoch: int) -> None:
        now, last = self._gradients(self.network), self._gradients_of_last(epoch)
        if last is not None and cosine_similarity(now, last).mean() >= self.similarity:
            return
        with atomic_path(self.folder / f"epoch-{epoch:05d}.safetensors") as temporary:
            save_model(self.network, str(temporary))
        self._last = now

    def _gradients_of_last(self, epoch: int) -> Tensor | None:
        earlier = [path for path in kept_surrogates(self.folder) if epoch_of(path) < epoch]
        if self._last is None and earlier:
            here = {name: value.clone() for name, value in self.network.state_dict().items()}
            load_model(self.network, str(earlier[-1]))
            self._last = self._gradients(self.network)
            self.network.load_state_dict(here)
        return self._last

    def _gradients(self, network: nn.Module) -> Tensor:
        network.eval()
        gradients = [
            class_gradient(network, as_floats(images.to(self.device)), label)
            for label, images in self.real.items()
        ]
        network.train()
        return torch.stack(gradients)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD, as the sources train surrogates."""
        return torch.optim.SGD(self.network.parameters(), self.learning_rate, momentum=0.9)


def kept_surrogates(folder: Path) -> list[Path]:
    """Return the files of the networks that were kept, in the order of their epochs."""
    return sorted(folder.glob("epoch-*.safetensors"))


def epoch_of(path: Path) -> int:
    """Return after which epoch a network was kept, counted from 0."""
    return int(path.stem.partition("-")[2])
