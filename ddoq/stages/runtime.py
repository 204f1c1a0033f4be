"""What the stages need besides a node's identity: the data's location and the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddoq.data.base import ImageDataset
from ddoq.errors import DdoqError
from ddoq.pipeline.store import MANIFEST
from ddoq.utils.io import read_json

if TYPE_CHECKING:
    import torch

    from ddoq.data.indexed import IndexedImages


def build(config: Mapping[str, Any], **runtime: Any) -> Any:
    """Instantiate a component from its configuration and from objects that only exist at run time.

    Raises:
        DdoqError: what the constructor raised, without Hydra's wrapping.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    plain = {key: value for key, value in config.items() if key != "name"}
    try:
        return instantiate(plain, **runtime, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, DdoqError):
            raise error.__cause__ from None
        raise


def facts(artefact: Path) -> dict:
    """Return the facts in the manifest of a finished artefact."""
    return read_json(artefact / MANIFEST)["facts"]


@dataclass
class Runtime:
    """How to compute. Nothing in here may change a result.

    Attributes:
        dataset: the data set, with the location of its files.
        weights: local folder or hub id of pretrained models, by ``encoder``, ``generator`` and ``features``.
        accelerator, batch_size, num_workers: see ``TrainerConf``.
    """

    dataset: ImageDataset
    weights: Mapping[str, str | None]
    accelerator: str = "auto"
    batch_size: int = 64
    num_workers: int = 0
    _tensors: dict = field(default_factory=dict, repr=False)

    def images(self, index: Path, split: str) -> IndexedImages:
        """Return the images of a split, decoded on demand."""
        from ddoq.data.indexed import IndexedImages

        return IndexedImages(self.dataset, index, split)

    def tensors(self, index: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images and labels of a split, read once per process."""
        if (index, split) not in self._tensors:
            self._tensors[index, split] = self.images(index, split).tensors()
        return self._tensors[index, split]

    @property
    def device(self) -> str:
        """Where plain torch code computes: ``cuda`` where there is one and the accelerator allows it."""
        import torch

        return "cuda" if self.accelerator in ("auto", "gpu") and torch.cuda.is_available() else "cpu"

    def batches(self, items: list[int]) -> list[list[int]]:
        """Cut item numbers into batches."""
        return [items[i : i + self.batch_size] for i in range(0, len(items), self.batch_size)]
