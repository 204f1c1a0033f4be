"""What a search has found, said when it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from ddoq.utils.console import console

RESULTS = "optimization_results.yaml"  # Optuna's sweeper writes it


class SayBest(Callback):
    """Prints the best value of a search, what it was reached with, and where it is written."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """See ``hydra.experimental.callback.Callback``."""
        file = Path(config.hydra.sweep.dir) / RESULTS
        if not file.is_file():  # nothing was finished
            return
        results = OmegaConf.to_container(OmegaConf.load(file))
        chosen = " ".join(f"{key}={value}" for key, value in results["best_params"].items())
        console.print(
            f"\nbest       {results['best_value']:.1f} % on the {config.split} split\n"
            f"with       {chosen}\n"
            f"results    {file}",
            markup=False,
            soft_wrap=True,
        )
