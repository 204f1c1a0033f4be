"""One run: check, plan, execute, report."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from textwrap import wrap
from typing import Any

from rich.markup import escape
from rich.table import Table

from ddoq.config.checks import check, check_counts, check_paths
from ddoq.config.names import run_name
from ddoq.config.secrets import check_secrets, leaves
from ddoq.data.base import ImageDataset
from ddoq.data.leaks import leak_lines, likeness_line, refuse_leaks
from ddoq.data.recognised import from_facts, recognised
from ddoq.errors import DataError
from ddoq.pipeline.estimate import expected
from ddoq.pipeline.graph import STAGES, Node, downstream, unique
from ddoq.pipeline.keys import digest
from ddoq.pipeline.plans import write_plan
from ddoq.pipeline.runner import Step, execute, plan
from ddoq.pipeline.status import current, followed
from ddoq.pipeline.store import DIGESTS, Store
from ddoq.stages import compute
from ddoq.stages.compatible import check_classes, check_fit, remarks
from ddoq.stages.evaluate import check_protocol
from ddoq.stages.generate import try_generators
from ddoq.stages.graph import Experiment
from ddoq.stages.models import Models, networks_of
from ddoq.stages.runtime import Runtime, build
from ddoq.stages.teachers import check_orders
from ddoq.tracking import session
from ddoq.utils.console import console
from ddoq.utils.device import check_accelerator
from ddoq.utils.digests import Digests
from ddoq.utils.io import remove_leftovers
from ddoq.utils.paths import expand_paths
from ddoq.utils.ranks import Alone, granted, place, unused_tasks

#: Stages that only try models.
_TRIALS = ("probe", "check_generator")
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
        targets: nodes that have to be there in the end.
        stale: nodes that ``run.from`` asks to compute again.
        steps: the plan, inputs first.
    """

    config: dict[str, Any]
    runtime: Runtime
    experiment: Experiment
    store: Store
    targets: list[Node]
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
    config = expand_paths({name: part for name, part in config.items() if name != "hydra"})
    check_paths(config)
    store, run = Store(Path(config["paths"]["outputs"]) / "store"), config["run"]
    digests = Digests(store.root / DIGESTS)
    ranks, models = ranks or Alone(), Models(config["paths"]["models"], digests)
    trainer = {name: value for name, value in config["trainer"].items() if name != "join_timeout"}
    runtime = Runtime(_dataset(config, digests), models, ranks, **trainer)
    # One process looks for the data first: it may have to download them.
    fingerprint = ranks.share(_fingerprint(config, runtime, fingerprints) if ranks.rank == 0 else None)
    experiment = Experiment(config, fingerprint, models)
    targets = _asked_for(experiment, store, models)
    check_fit(config, models)
    experiment.check()
    stale = downstream(unique(targets), run["from"]) if run["from"] else []
    return Job(config, runtime, experiment, store, targets, stale, plan(targets, store, stale))


def _asked_for(experiment: Experiment, store: Store, models: Models) -> list[Node]:
    """Return the targets of a run. One that was finished before its models were tried, and whose models are no longer
    on this machine, is shown as it is.
    """
    targets = experiment.targets(experiment.config["run"]["until"])
    untried = [node for node in targets if node.stage in _TRIALS and not store.has(node)]
    others = [node for node in targets if node not in untried]
    if not untried or not all(map(store.has, others)):
        return targets
    try:
        models.require(untried)
    except DataError:
        return others
    return targets


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
    check_orders(job.config, facts)
    if job.config["dataset"]["on_leak"] == "error":
        refuse_leaks(job.store.manifest(job.experiment.audit)["facts"])


def _say_leaks(job: Job) -> None:
    """Print what the audit of the data, if there is one yet, has to say."""
    if not job.store.has(job.experiment.audit):
        return
    audit, name = job.store.manifest(job.experiment.audit)["facts"], escape(job.runtime.dataset.name)
    for line in leak_lines(audit):
        console.print(f"  [yellow]{name}: {escape(line)}[/]", soft_wrap=True)
    if line := likeness_line(audit):
        console.print(f"  [dim]{name}: {line}[/]", soft_wrap=True)


def run_job(config: Mapping[str, Any], run_dir: Path) -> float | None:
    """Do what a resolved configuration asks for; everything lands below ``paths.outputs``.

    Started by torchrun or srun, all processes come here and share the work; the first one speaks for them.

    Returns:
        What a search maximises: the main arm's mean accuracy on the validation split, where ``split`` says so.

    Raises:
        DdoqError: with cause and remedy; finished artefacts stay.
    """
    looks_only = config["run"]["fetch"] or config["run"]["plan_only"]
    with followed(run_dir) if not looks_only and place().rank == 0 else nullcontext():
        return _run_checked(config, run_dir)


def _run_checked(config: Mapping[str, Any], run_dir: Path) -> float | None:
    check(config)
    if config["run"]["fetch"]:
        fetch(config)
        return None
    if config["run"]["plan_only"]:
        _print_plan(prepare(config), in_full=True)
        return None
    console.quiet = config["run"]["quiet"]
    ranks = _join(config)
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


def _join(config: Mapping[str, Any]) -> Alone:
    """Return the processes that compute this run; torch is only imported where there are several."""
    here = place()
    if here.size > 1:
        from ddoq.engine.ranks import Team

        return Team(here, config["trainer"]["join_timeout"])
    if tasks := unused_tasks():
        console.print(f"[yellow]1 of SLURM's {tasks} tasks is used: srun -n {tasks} starts a process for each[/]")
    if (gpus := granted("SLURM_GPUS_ON_NODE")) > 1:
        console.print(f"[yellow]{gpus - 1} of {gpus} GPUs idle: start one process for each (srun -n {gpus})[/]")
    return Alone()


def _run(job: Job, run_dir: Path, ranks: Alone) -> None:
    current().planned(job.steps, job.config["run"]["until"])
    _print_plan(job, in_full=False)
    check_missing(job)
    if job.missing:
        check_accelerator(job.runtime.accelerator)
    experiment, store, until = job.experiment, job.store, job.config["run"]["until"]
    with session(job.config, run_dir) if ranks.rank == 0 else nullcontext() as tracker:
        if ranks.rank == 0:
            remove_leftovers(run_dir)
            write_plan(run_dir, job.steps, add=True)  # before anything is computed: it keeps `ddoq store gc` away
            for node in job.stale:
                store.discard(node)
        execute([experiment.index, experiment.audit], store, lambda *arguments: compute(*arguments, job.runtime), ranks)
        check_data(job)
        _say_leaks(job)
        if ranks.rank == 0:
            try_generators(job.missing, store.manifest(experiment.index)["facts"], job.runtime)
        execute(job.targets, store, lambda *arguments: compute(*arguments, job.runtime), ranks)
        if until == "report" and ranks.rank == 0:
            from ddoq.report.write import write_report

            current().stage("report")
            write_report(experiment, store, job.steps, run_dir, tracker)


def _dataset(config: Mapping[str, Any], digests: Digests) -> ImageDataset:
    folders = config["paths"]["data"]
    search = tuple(Path(folder) for folder in ([folders] if isinstance(folders, str) else folders))
    return build(config["dataset"], name=config["dataset"]["name"], search=search, digests=digests)


def fetch(config: Mapping[str, Any]) -> None:
    """Download the models and the data that a configuration needs, where that is possible."""
    config = expand_paths(config)
    models = Models(config["paths"]["models"])
    for conf, key in networks_of(config):
        models.identify(conf, key)
    models.fetch(lambda line: console.print(line, markup=False))
    dataset = _dataset(config, Digests())
    console.print(f"dataset: {dataset.name}")
    dataset.fetch(dataset.search[0])


def _print_data(job: Job) -> None:
    """Print what the data were taken for. They are opened where they have to be indexed, else the store says it.

    Raises:
        DataError: their classes and splits do not go together.
    """
    (index,) = (step for step in job.steps if step.node.stage == "index")
    if index.state == "idle" or job.runtime.ranks.rank:
        return
    if index.state == "miss":
        lines = recognised(job.runtime.dataset.examine(), job.runtime.dataset)
    else:
        lines = from_facts(job.store.manifest(index.node)["facts"])
    parts = [part for line in lines for part in wrap(line, 72, subsequent_indent="  ", break_on_hyphens=False)]
    for number, part in enumerate(parts):
        console.print(f"{' ' * 8 if number else '  data: '}{part}", markup=False, soft_wrap=True)


def _print_plan(job: Job, in_full: bool) -> None:
    """Print one line per stage, or per node where the plan is all that was asked for."""
    console.print(f"[bold]{run_name(job.config)}[/]", soft_wrap=True)
    _print_data(job)
    for remark in remarks(job.config, job.runtime.models):
        console.print(f"  {remark}", markup=False, soft_wrap=True)
    if in_full:
        table = Table("stage", "what", "state", "key", box=None, pad_edge=False)
        for step in job.steps:
            colour = {"hit": "green", "miss": "yellow", "idle": "dim"}[step.state]
            table.add_row(step.node.stage, step.node.title, f"[{colour}]{step.state}[/]", step.node.key)
        console.print(table)
        console.print(f"to compute: {expected(job.missing, job.store)}")
        _say_leaks(job)
        return
    states: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for step in job.steps:
        states[step.node.stage].append(step.state)
    parts = [f"{stage} {len(s) - s.count('miss')}/{len(s)}" for stage, s in states.items() if s]
    console.print("  in the store: " + "  ".join(parts), soft_wrap=True)
