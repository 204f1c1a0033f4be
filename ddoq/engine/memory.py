"""Batches that fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from ddoq.errors import StageError


class FittingBatches:
    """Applies a function to a batch, in halves and quarters once the whole does not fit;
    remembers what fitted.

    Args:
        title: of the stage, for the log.
    """

    def __init__(self, title: str):
        self.title, self.largest = title, None

    def __call__(self, num: int, function: Callable[[slice], Tensor]) -> Tensor:
        """Return ``function`` of all ``num`` items;
        it takes the slice of items that it is to work on.

        Raises:
            StageError: a single item does not fit.
        """
        parts, start = [], 0
        while start < num:
            size = min(self.largest or num, num - start)
            part = self._try(function, slice(start, start + size))
            if part is not None:
                parts.append(part)
                start += size
                continue
            if size == 1:
                raise StageError(
                    f"{self.title}: out of memory with a batch of one",
                    "use a lower precision (encoder.precision, generator.precision), "
                    "smaller images or a larger device",
                )
            self.largest = size // 2
            logging.getLogger("ddoq").warning(
                "%s: out of memory with a batch of %d, "
                "going on with %d (trainer.batch_size sets it)",
                *(self.title, size, self.largest),
            )
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return torch.cat(parts)

    @staticmethod
    def _try(function: Callable[[slice], Tensor], rows: slice) -> Tensor | None:
        try:
            return function(rows)
        except (torch.OutOfMemoryError, MemoryError):
            return None
        except RuntimeError as error:  # what the allocator of CPU memory raises
            if "can't allocate memory" not in str(error) and "not enough memory" not in str(error):
                raise
            return None
