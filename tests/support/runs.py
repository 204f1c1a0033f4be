"""Configurations and runs as tests make them, in this process."""

from __future__ import annotations

import os
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from ddoq.config.choices import conf_dir
from ddoq.config.complete import completed
from ddoq.config.names import register_resolvers, run_name
from ddoq.config.schema import register
from ddoq.job import run_job
from ddoq.utils.console import console

ROOT = Path(__file__).resolve().parents[2]
# Before anything imports torch: a second thread makes networks this small no faster,
# and where cores are shared slower.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

#: The processes of pytest-xdist have one; output is as wide as in a pipe.
os.environ.pop("COLUMNS", None)
console.width = 120

SHARED = Path(os.environ.get("DDOQ_SHARED_DATA", ROOT.parent / "shared" / "data"))

#: Overrides that shrink any experiment to seconds; the code paths stay the same.
TINY = (
    "protocol=smoke",
    "student.width=8",
    "generator.fit.num_steps=20",
    "generator.fit.num_layers=1",
    "generator.num_steps=4",
    "quantizer.num_restarts=1",
    "measure.curve=[2,10]",
    "measure.num_folds=2",
    "ablation.num_seeds=1",
    "ablation.strengths=[0,1]",
    "trainer.accelerator=cpu",
    "trainer.processes=1",
)

#: The same without a diffusion model, ablations and measures of codebooks.
DECODED = (
    *(override for override in TINY if not override.startswith("generator.")),
    "generator=decode",
    "ablation=none",
    "measure.curve=[]",
    "measure.num_folds=0",
)

#: A teacher that knows the digits after two seconds.
TEACHER = (
    "+student@teacher.student=convnet_d3_w32",
    "+protocol@teacher.protocol=digits",
    "teacher.protocol.num_steps=100",
)


def composition(*overrides: str) -> DictConfig:
    """Return the configuration of some overrides as Hydra has it,
    with its types and interpolations.
    """
    register()
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", list(overrides))


def composed(*overrides: str) -> dict:
    """Return the resolved configuration of some overrides, as ``run_job`` gets it."""
    return completed(OmegaConf.to_container(composition(*overrides), resolve=True))


def choice(group: str, name: str) -> dict:
    """Return a choice of a group as its file has it, and those that it takes over from."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return OmegaConf.to_container(compose(f"{group}/{name}")[group], resolve=True)


def run_here(*overrides: str) -> Path:
    """Run in this process alone, which has torch already; return the run's folder.

    Errors are raised, not printed.
    """
    config = composed("trainer.processes=1", *overrides)
    folder = Path(config["paths"]["outputs"]) / "runs" / run_name(config)
    folder.mkdir(parents=True, exist_ok=True)
    run_job(config, folder)
    return folder


def artefacts(outputs: Path, *stages: str) -> dict[str, bytes]:
    """Return the bytes of every file of the artefacts of some stages,
    without what only describes the computation.
    """
    return {
        str(file.relative_to(outputs)): file.read_bytes()
        for stage in stages
        for file in sorted((outputs / "store" / stage).rglob("*"))
        if file.is_file() and file.name != "manifest.json" and not file.name.endswith(".lock")
    }
