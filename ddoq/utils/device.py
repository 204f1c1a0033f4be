"""Which device is this process's."""

from __future__ import annotations

from ddoq.utils.ranks import number


def cuda_index(accelerator: str) -> int | None:
    """Return the number of this process's GPU among those it sees; ``None`` without one, or without its permission.

    Args:
        accelerator: Lightning's; ``auto`` and ``gpu`` allow a GPU.
    """
    import torch

    if accelerator not in ("auto", "gpu") or not torch.cuda.is_available():
        return None
    local_rank = number("LOCAL_RANK", number("SLURM_LOCALID", 0))
    return local_rank % torch.cuda.device_count()  # SLURM may show each task only its own


def device_of(accelerator: str) -> str:
    """Return where plain torch code computes: this process's GPU if there is one and ``accelerator`` allows it."""
    index = cuda_index(accelerator)
    return "cpu" if index is None else f"cuda:{index}"
