"""Distillation as a function, for notebooks and scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from ddoq.config.choices import conf_dir
from ddoq.config.explain import explain
from ddoq.config.names import register_resolvers, run_name
from ddoq.config.schema import register
from ddoq.data.distilled import DistilledDataset
from ddoq.job import prepare, run_job


def distill(
    root: str | Path, *overrides: str, ipc: int = 10, outputs: str | Path = "outputs"
) -> DistilledDataset:
    """Distil a folder of class folders into ``ipc`` weighted images per class.

    What is in ``outputs`` already is not computed again: a second call answers at once.

    Args:
        root: the folder; splits above the classes (``train``, ``test``) are understood.
        overrides: as on the command line, ``"dataset.image_size=96"`` or ``"generator=decode"``;
            without any, the experiment ``photos``: real images, chosen in a teacher's features.
        ipc: images per class.
        outputs: folder of everything that is written.

    Raises:
        DdoqError: with cause and remedy.
    """
    config = _composed(
        "+experiment=photos",
        f"ipc={ipc}",
        "run.until=label",
        *overrides,
        root=str(root),
        outputs=str(outputs),
    )
    run_dir = Path(config["paths"]["outputs"]) / "runs" / run_name(config)
    run_dir.mkdir(parents=True, exist_ok=True)
    run_job(config, run_dir)
    job = prepare(config)
    labelled = next(
        entry.label for entry in job.experiment.entries if entry.arm == job.experiment.main_name
    )
    return DistilledDataset(job.store.path(labelled))


def _composed(*overrides: str, root: str, outputs: str) -> dict[str, Any]:
    """Return the resolved configuration. Paths are set behind Hydra's back, whose grammar would
    read something into some of them.
    """
    register()
    register_resolvers()
    of_the_caller = GlobalHydra.instance().hydra  # who may be an application of Hydra's
    GlobalHydra.instance().hydra = None
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = compose("config", list(overrides))
            config.dataset.root, config.paths.outputs = root, outputs
            return OmegaConf.to_container(config, resolve=True)
    except Exception as error:
        raise explain(error) from error
    finally:
        GlobalHydra.instance().hydra = of_the_caller
