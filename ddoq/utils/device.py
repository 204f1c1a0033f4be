"""Which device is this process's."""

from __future__ import annotations

import os

from ddoq.errors import ConfigError
from ddoq.utils.ranks import number


def check_accelerator(accelerator: str) -> None:
    """Raise ConfigError where a device is asked for that this process does not have;
    ``auto`` and ``cpu`` always do.
    """
    import torch

    is_here = {"gpu": torch.cuda.is_available, "mps": torch.backends.mps.is_available}.get(
        accelerator
    )
    if is_here is None or is_here():
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = (
        f" (CUDA_VISIBLE_DEVICES is '{visible}')"
        if accelerator == "gpu" and visible is not None
        else ""
    )
    raise ConfigError(
        f"trainer.accelerator: {accelerator}, "
        f"and torch {torch.__version__} finds none on this machine{hidden}",
        "set trainer.accelerator=cpu, or auto for whatever is there",
    )


def is_cpu(accelerator: str) -> bool:
    """Tell whether networks are trained on the CPU where Lightning chooses among what is here."""
    import torch

    if accelerator != "auto":
        return accelerator == "cpu"
    return not torch.cuda.is_available() and not torch.backends.mps.is_available()


def cuda_index(accelerator: str) -> int | None:
    """Return the number of this process's GPU among those it sees;
    ``None`` without one, or without its permission.

    Args:
        accelerator: Lightning's; ``auto`` and ``gpu`` allow a GPU.
    """
    import torch

    if accelerator not in ("auto", "gpu") or not torch.cuda.is_available():
        return None
    local_rank = number("LOCAL_RANK", number("SLURM_LOCALID", 0))
    return local_rank % torch.cuda.device_count()  # SLURM may show each task only its own


def device_of(accelerator: str) -> str:
    """Return where plain torch code computes:
    this process's GPU if there is one and ``accelerator`` allows it.
    """
    index = cuda_index(accelerator)
    return "cpu" if index is None else f"cuda:{index}"
