"""Lightning without its chat."""

from __future__ import annotations

import logging
import warnings


def quiet() -> None:
    """Silence what Lightning says to everybody who uses it as a library."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        for part in ("", ".utilities.rank_zero", ".utilities.distributed"):
            logging.getLogger(name + part).setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        ".*srun.*",
        ".*litlogger.*",
        ".*val_dataloader.*",
        ".*across ranks is zero.*",
        ".*module.s. in eval mode.*",
        ".*Couldn't infer the batch indices.*",
    ):
        warnings.filterwarnings("ignore", message)
