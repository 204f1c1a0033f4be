"""One run: check, plan, execute, report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from ddoq.config.checks import check, check_counts, check_paths
from ddoq.config.names import run_name
from ddoq.config.secrets import check_secrets, leaves
from ddoq.data.base import ImageDataset
from ddoq.pipeline.estimate import expected
from ddoq.pipeline.graph import STAGES, Node, downstream, unique
from ddoq.pipeline.keys import digest
from ddoq.pipeline.plans import write_plan
from ddoq.pipeline.runner import Step, execute, plan
from ddoq.pipeline.status import current, followed
from ddoq.pipeline.store import Store
from ddoq.stages import compute
from ddoq.stages.compatible import check_classes, check_fit, remarks
from ddoq.stages.evaluate import check_protocol
from ddoq.stages.generate import try_generators
from ddoq.stages.graph import Experiment
from ddoq.stages.models import Models, networks_of
from ddoq.stages.runtime import Runtime, build
from ddoq.tracking import session
from ddoq.utils.console import console
from ddoq.utils.io import remove_leftovers
from ddoq.utils.ranks import Alone, comes_first, company

#: Values of ``run.until`` after which there are accuracies.
_MEASURED = ("evaluate", "report")


@dataclass(frozen=True)
class Job:
    """A run that has been checked and planned, and nothing computed yet.

    Attributes:
        config: resolved, without Hydra's part.
        runtime: how to compute.
        experiment: the graph of everything that is asked for.
        store: where the artefacts are.
        stale: nodes that ``run.from`` asks to compute again.
        steps: the plan, inputs first.
    """

    config: dict[str, Any]
    runtime: Runtime
    experiment: Experiment
    store: Store
    stale: list[Node]
    steps: list[Step]

    @property
    def missing(self) -> list[Node]:
        """The nodes that have to be computed."""
        return [step.node for step in self.steps if step.state == "miss"]


def prepare(config: Mapping[str, Any], ranks: Alone | None = None, fingerprints: dict[str, str] | None = None) -> Job:
    """Check a resolved configuration and plan it, without computing anything.

    Args:
        config: resolved.
        ranks: the processes that compute this run together.
        fingerprints: of data sets that were looked at before, by their configuration; filled here.

    Raises:
        ConfigError, DataError: with cause and remedy.
    """
    check_secrets(leaves(config))
    check(config)
    check_paths(config)
    config = {name: part for name, part in config.items() if name != "hydra"}
    ranks, models = ranks or Alone(), Models(config["paths"]["models"])
    runtime = Runtime(_dataset(config), models, ranks, **config["trainer"])
    # One process looks for the data first: it may have to download them.
    fingerprint = ranks.share(_fingerprint(config, runtime, fingerprints) if ranks.rank == 0 else None)
    experiment = Experiment(config, fingerprint, models)
    store, run = Store(Path(config["paths"]["outputs"]) / "store"), config["run"]
    targets = experiment.targets(run["until"])
    check_fit(config, models)
    experiment.check()
    stale = downstream(unique(targets), run["from"]) if run["from"] else []
    return Job(config, runtime, experiment, store, stale, plan(targets, store, stale))


def _fingerprint(config: Mapping[str, Any], runtime: Runtime, known: dict[str, str] | None) -> str:
    known = {} if known is None else known
    of = digest({"dataset": config["dataset"], "paths": config["paths"]["data"]})
    if of not in known:
        known[of] = runtime.dataset.fingerprint()
    return known[of]


def check_missing(job: Job) -> None:
    """Raise DdoqError where what has to be computed lacks a model or fits no protocol.

    It imports torch, which a run that only reports does not need.
    """
    job.runtime.models.require(job.missing)
    check_fit(job.config, job.runtime.models)  # again: some may have come from the hub just now
    if job.missing:
        check_protocol(job.config)


def check_data(job: Job) -> None:
    """Raise DdoqError where the data, once they have been indexed, cannot serve the configuration."""
    facts = job.store.manifest(job.experiment.index)["facts"]
    job.runtime.dataset.check(facts)
    check_counts(job.config, facts)
    check_classes(job.config, job.runtime.models, facts)


def run_job(config: Mapping[str, Any], run_dir: Path) -> float | None:
    """Do what a resolved configuration asks for; everything lands below ``paths.outputs``.

    Started by torchrun or srun, all processes come here and share the work; the first one speaks for them.

    Returns:
        What a search maximises: the main arm's mean accuracy on the validation split, where ``split`` says so.

    Raises:
        DdoqError: with cause and remedy; finished artefacts stay.
    """
    looks_only = config["run"]["fetch"] or config["run"]["plan_only"]
    with followed(run_dir) if comes_first() and not looks_only else nullcontext():
        return _run_checked(config, run_dir)


def _run_checked(config: Mapping[str, Any], run_dir: Path) -> float | None:
    check(config)
    if config["run"]["fetch"]:
        fetch(config)
        return None
    if config["run"]["plan_only"]:
        _print_plan(prepare(config), in_full=True)
        return None
    ranks = _join()
    console.quiet = ranks.rank > 0 or config["run"]["quiet"]
    try:
        job = prepare(config, ranks)
        _run(job, run_dir, ranks)
    except Exception as error:
        ranks.fail(error)
        raise
    return _objective(job) if config["split"] == "validation" and config["run"]["until"] in _MEASURED else None


def _objective(job: Job) -> float:
    main = [
        entry for entry in job.experiment.entries if entry.table == "main" and entry.arm == job.experiment.main_name
    ]
    return fmean(job.store.manifest(entry.evaluate)["facts"]["top1"] for entry in main)


def _join() -> Alone:
    """Return the processes that compute this run; torch is only imported where there are several."""
    if company() == 1:
        if (gpus := int(os.environ.get("SLURM_GPUS_ON_NODE", 1))) > 1:
            console.print(f"[yellow]{gpus - 1} of {gpus} GPUs idle: start one process for each (srun -n {gpus})[/]")
        return Alone()
    from ddoq.engine.ranks import Team

    return Team()


def _run(job: Job, run_dir: Path, ranks: Alone) -> None:
    current().planned(job.steps, job.config["run"]["until"])
    _print_plan(job, in_full=False)
    check_missing(job)
    experiment, store, until = job.experiment, job.store, job.config["run"]["until"]
    with session(job.config, run_dir) if ranks.rank == 0 else nullcontext() as tracker:
        if ranks.rank == 0:
            remove_leftovers(run_dir)
            write_plan(run_dir, job.steps, add=True)  # before anything is computed: it keeps `ddoq store gc` away
            for node in job.stale:
                store.discard(node)
        execute([experiment.index], store, lambda *arguments: compute(*arguments, job.runtime), ranks)
        check_data(job)
        if ranks.rank == 0:
            try_generators(job.missing, store.manifest(experiment.index)["facts"], job.runtime)
        execute(experiment.targets(until), store, lambda *arguments: compute(*arguments, job.runtime), ranks)
        if until == "report" and ranks.rank == 0:
            from ddoq.report.write import write_report

            current().stage("report")
            write_report(experiment, store, job.steps, run_dir, tracker)


def _dataset(config: Mapping[str, Any]) -> ImageDataset:
    folders = config["paths"]["data"]
    search = tuple(Path(folder) for folder in ([folders] if isinstance(folders, str) else folders))
    return build(config["dataset"], name=config["dataset"]["name"], search=search)


def fetch(config: Mapping[str, Any]) -> None:
    """Download the models and the data that a configuration needs, where that is possible."""
    models = Models(config["paths"]["models"])
    for conf, key in networks_of(config):
        models.identify(conf, key)
    models.fetch(lambda line: console.print(line, markup=False))
    dataset = _dataset(config)
    console.print(f"dataset: {dataset.name}")
    dataset.fetch(dataset.search[0])


def _print_plan(job: Job, in_full: bool) -> None:
    """Print one line per stage, or per node where the plan is all that was asked for."""
    console.print(f"[bold]{run_name(job.config)}[/]", soft_wrap=True)
    for remark in remarks(job.config, job.runtime.models):
        console.print(f"  {remark}", markup=False, soft_wrap=True)
    if in_full:
        table = Table("stage", "what", "state", "key", box=None, pad_edge=False)
        for step in job.steps:
            colour = {"hit": "green", "miss": "yellow", "idle": "dim"}[step.state]
            table.add_row(step.node.stage, step.node.title, f"[{colour}]{step.state}[/]", step.node.key)
        console.print(table)
        console.print(f"to compute: {expected(job.missing, job.store)}")
        return
    states: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for step in job.steps:
        states[step.node.stage].append(step.state)
    parts = [f"{stage} {len(s) - s.count('miss')}/{len(s)}" for stage, s in states.items() if s]
    console.print("  in the store: " + "  ".join(parts), soft_wrap=True)
