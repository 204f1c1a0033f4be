"""Which device is this process's."""

from __future__ import annotations

import os


def cuda_index() -> int | None:
    """Return the number of this process's GPU among those it sees; ``None`` where it sees none."""
    import torch

    if not torch.cuda.is_available():
        return None
    local_rank = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))
    return local_rank % torch.cuda.device_count()  # SLURM may show each task only its own


def device_of(accelerator: str) -> str:
    """Return where plain torch code computes: this process's GPU if there is one and ``accelerator`` allows it."""
    index = cuda_index() if accelerator in ("auto", "gpu") else None
    return "cpu" if index is None else f"cuda:{index}"
