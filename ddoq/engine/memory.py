"""How much memory there is, and batches that fit into it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import deepcopy
from itertools import chain

import torch
from torch import Tensor, nn

from ddoq.distillers.features import graph_bytes
from ddoq.encoders import Encoder
from ddoq.errors import StageError
from ddoq.utils.cores import usable_memory


def free_memory(device: str) -> int:
    """Return the free bytes of a GPU, or of this machine."""
    return usable_memory() if device == "cpu" else torch.cuda.mem_get_info(device)[0]


class FittingBatches:
    """Applies a function to a batch, in halves and quarters once the whole does not fit;
    remembers what fitted.

    Args:
        title: of the stage, for the log.
        largest: items that fit at once, where that is known.
    """

    def __init__(self, title: str, largest: int | None = None):
        self.title, self.largest = title, largest

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


class _Decoder(nn.Module):
    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, latents: Tensor) -> Tensor:
        return self.encoder.decode(latents)


def decoding_bytes(encoder: Encoder, shape: tuple[int, ...]) -> int:
    """Return the bytes that are held of the decoding of a latent for the way back, by a pass that
    has shapes alone.

    Args:
        encoder: whose decoder is differentiated.
        shape: of the latent, without the batch.
    """
    tensors = chain(encoder.parameters(), encoder.buffers())
    shapes = {id(t): nn.Parameter(t.to("meta"), requires_grad=False) for t in tensors}
    decoder = _Decoder(deepcopy(encoder, shapes))
    return graph_bytes(decoder, torch.empty(1, *shape, device="meta"))
