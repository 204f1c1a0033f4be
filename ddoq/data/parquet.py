"""Hugging Face style image Parquet: a column of ``{bytes, path}`` structs
and a column of labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ddoq.data.base import ImageDataset, Source, hash_files
from ddoq.data.shards import Shards, find_shards
from ddoq.errors import DataError
from ddoq.utils.digests import Digests


@dataclass
class ParquetImages(ImageDataset):
    """A folder of ``train*.parquet``, ``validation*.parquet``
    and ``test*.parquet`` files, or one file.

    The files may lie as the Hub has them (``data/``, ``default/train/``) or as ``save_to_disk``
    leaves them, see ``ddoq.data.shards``. With no test file, the validation file is the test set
    and validation images are drawn from train.

    Args:
        image_column, label_column: names of the columns.
        class_order: of labels that are names, see ``ImageFolder``.
    """

    image_column: str = "image"
    label_column: str = "label"
    class_order: Literal["text", "number"] = "text"

    def fingerprint(self) -> str:
        """See ``ImageDataset.fingerprint``."""
        return hash_shards(find_shards(self._root()), self.digests)

    def open(self) -> Source:
        """See ``ImageDataset.open``."""
        from ddoq.data.tables import open_parquet  # and pyarrow, which a plan need not wait for

        return open_parquet(self._root(), self.image_column, self.label_column, self.class_order)

    def _root(self) -> Path:
        if not self.root or not Path(self.root).exists():
            raise DataError(
                f"dataset.root: {self.root!r} is not a folder",
                "set dataset.root to a folder that holds train*.parquet files",
            )
        return Path(self.root)


def hash_shards(shards: Shards, digests: Digests | None = None) -> str:
    """Return the fingerprint of the files of a data set of tables."""
    return hash_files((file for _, file in shards), shards.base, digests)
