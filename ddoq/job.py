"""One run: check, plan, execute, report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from statistics import fmean
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from ddoq.config.build import build
from ddoq.config.names import run_name
from ddoq.config.settings import Paths, Run, paths_of, run_of, trainer_of
from ddoq.data.base import ImageDataset
from ddoq.data.label_space import LabelSpace
from ddoq.data.leaks import leak_lines, likeness_line
from ddoq.data.recognised import from_facts, recognised
from ddoq.errors import DataError
from ddoq.experiment.compatible import remarks
from ddoq.experiment.experiment import Experiment
from ddoq.experiment.models import Models, networks_of
from ddoq.pipeline.crew import Crew
from ddoq.pipeline.estimate import expected
from ddoq.pipeline.graph import Node, Step, downstream, unique
from ddoq.pipeline.here import Compute, Here
from ddoq.pipeline.keys import digest
from ddoq.pipeline.plans import plan, write_plan
from ddoq.pipeline.runner import Pool, execute
from ddoq.pipeline.stages import STAGES, TABLE, reaches
from ddoq.pipeline.status import current, followed
from ddoq.pipeline.store import DIGESTS, Store
from ddoq.preflight import check_config, check_data, check_missing, check_plan, try_missing
from ddoq.report.growing import announced
from ddoq.tracking import session
from ddoq.utils.console import console
from ddoq.utils.cores import usable_cores, useful_processes
from ddoq.utils.device import is_cpu
from ddoq.utils.digests import Digests
from ddoq.utils.io import remove_leftovers
from ddoq.utils.ranks import Alone, granted, place, unused_tasks

if TYPE_CHECKING:
    from ddoq.stages.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run that has been checked and planned, and nothing computed yet.

    Attributes:
        config: resolved, without Hydra's part.
        dataset: the data set, with the location of its files.
        models: finds pretrained models.
        ranks: the processes that compute it together.
        experiment: the graph of everything that is asked for.
        store: where the artefacts are.
        targets: nodes that have to be there in the end.
        stale: nodes that ``run.from`` asks to compute again.
        steps: the plan, inputs first.
    """

    config: dict[str, Any]
    dataset: ImageDataset
    models: Models
    ranks: Alone
    experiment: Experiment
    store: Store
    targets: list[Node]
    stale: list[Node]
    steps: list[Step]

    @property
    def missing(self) -> list[Node]:
        """The nodes that have to be computed."""
        return [step.node for step in self.steps if step.state == "miss"]

    @property
    def run(self) -> Run:
        """What is to be done."""
        return run_of(self.config)

    @property
    def paths(self) -> Paths:
        """Where things lie."""
        return paths_of(self.config)

    @cached_property
    def runtime(self) -> Runtime:
        """How to compute; torch is only imported for a run that does."""
        from ddoq.stages.runtime import Runtime

        trainer = trainer_of(self.config)
        has_cores = self.ranks.size == 1 and not is_cpu(trainer.accelerator)
        return Runtime(
            dataset=self.dataset,
            models=self.models,
            ranks=self.ranks,
            accelerator=trainer.accelerator,
            batch_size=trainer.batch_size,
            num_workers=trainer.num_workers,
            compile=trainer.compile,
            num_threads=usable_cores() if has_cores else 1,
        )

    def compute(self, node: Node, inputs: Mapping[str, Path], folder: Path) -> dict:
        """Compute a node; see ``ddoq.pipeline.here.Compute``."""
        from ddoq.stages.work import compute

        return compute(node, inputs, folder, self.runtime)

    def computing(self, ranks: Alone) -> Compute:
        """Return ``compute`` for one of several processes that share out the items of a node."""
        return replace(self, ranks=ranks).compute

    @contextmanager
    def pool(self) -> Iterator[Pool]:
        """Start the processes that compute what is missing, and end them after the block.

        It is this one alone on a GPU, and where torchrun or srun have started several.
        """
        trainer, num = trainer_of(self.config), 1
        if self.missing and self.ranks.size == 1 and is_cpu(trainer.accelerator):
            num = useful_processes(trainer.processes, len(self.missing))
        if num == 1:
            yield Here(self.store, self.compute, self.ranks)
            return
        for stage in {node.stage for node in self.missing}:
            import_module(f"ddoq.stages.{stage}")  # once for all processes
        with Crew(num, self.store, self.computing) as crew:
            yield crew


def prepare(
    config: Mapping[str, Any],
    ranks: Alone | None = None,
    fingerprints: dict[str, str] | None = None,
) -> Job:
    """Check a resolved configuration and plan it, without computing anything.

    Args:
        config: resolved.
        ranks: the processes that compute this run together.
        fingerprints: of data sets that were looked at before, by their configuration; filled here.

    Raises:
        ConfigError, DataError: with cause and remedy.
    """
    return _planned(
        check_config(config), ranks or Alone(), {} if fingerprints is None else fingerprints
    )


def _planned(config: dict[str, Any], ranks: Alone, fingerprints: dict[str, str]) -> Job:
    run, paths = run_of(config), paths_of(config)
    store = Store(paths.store)
    digests = Digests(store.root / DIGESTS)
    models, dataset = Models(paths.models, digests), _dataset(config, digests)
    # One process looks for the data first: it may have to download them.
    fingerprint = ranks.share(
        _fingerprint(config, dataset, fingerprints) if ranks.rank == 0 else None
    )
    experiment = Experiment(config, fingerprint, models)
    targets = _asked_for(experiment, run.until, store, models)
    check_plan(experiment, models)
    stale = downstream(unique(targets), run.from_stage) if run.from_stage else []
    steps = plan(targets, store, stale)
    return Job(
        config=config,
        dataset=dataset,
        models=models,
        ranks=ranks,
        experiment=experiment,
        store=store,
        targets=targets,
        stale=stale,
        steps=steps,
    )


def _asked_for(experiment: Experiment, until: str, store: Store, models: Models) -> list[Node]:
    """Return the targets of a run. One that was finished before its models were tried, and whose
    models are no longer on this machine, is shown as it is.
    """
    targets = experiment.targets(until)
    untried = [node for node in targets if TABLE[node.stage].tries and not store.has(node)]
    others = [node for node in targets if node not in untried]
    if not untried or not all(map(store.has, others)):
        return targets
    try:
        models.require(untried)
    except DataError:
        return others
    return targets


def _fingerprint(
    config: Mapping[str, Any], dataset: ImageDataset, fingerprints: dict[str, str]
) -> str:
    asked = digest({"dataset": config["dataset"], "paths": config["paths"]["data"]})
    if asked not in fingerprints:
        fingerprints[asked] = dataset.fingerprint()
    return fingerprints[asked]


def _say_leaks(job: Job) -> None:
    """Print what the audit of the data, if there is one yet, has to say."""
    if not job.store.has(job.experiment.nodes.audit):
        return
    audit, name = job.store.manifest(job.experiment.nodes.audit)["facts"], escape(job.dataset.name)
    for line in leak_lines(audit):
        console.print(f"  [yellow]{name}: {escape(line)}[/]", soft_wrap=True)
    if line := likeness_line(audit):
        console.print(f"  [dim]{name}: {line}[/]", soft_wrap=True)


def run_job(config: Mapping[str, Any], run_dir: Path, command: str = "") -> float | None:
    """Do what a resolved configuration asks for; everything lands below ``paths.outputs``.

    Started by torchrun or srun, all processes come here and share the work;
    the first one speaks for them. ``command`` is what the report says to reproduce it.

    Returns:
        What a search maximises: the main arm's mean accuracy on the validation split,
        where ``split`` says so.

    Raises:
        DdoqError: with cause and remedy; finished artefacts stay.
    """
    checked = check_config(config)
    run = run_of(checked)
    if run.fetch:
        fetch(checked)
        return None
    if run.plan_only:
        _print_plan(_planned(checked, Alone(), {}), in_full=True)
        return None
    with followed(run_dir) if place().rank == 0 else nullcontext():
        return _run_checked(checked, run_dir, command)


def _run_checked(config: dict[str, Any], run_dir: Path, command: str) -> float | None:
    run = run_of(config)
    console.quiet = run.quiet
    ranks = _join(trainer_of(config).join_timeout)
    console.quiet = ranks.rank > 0 or run.quiet
    try:
        job = _planned(config, ranks, {})
        _run(job, run_dir, command)
    except Exception as error:
        ranks.fail(error)
        raise
    is_measured = reaches(run.until, "evaluate")
    return _objective(job) if config["split"] == "validation" and is_measured else None


def _objective(job: Job) -> float:
    main = [
        entry
        for entry in job.experiment.entries
        if entry.table == "main" and entry.arm == job.experiment.main_name
    ]
    return fmean(job.store.manifest(entry.evaluate)["facts"]["top1"] for entry in main)


def _join(timeout: int) -> Alone:
    """Return the processes that compute this run;
    torch is only imported where there are several.
    """
    here = place()
    if here.size > 1:
        from ddoq.engine.ranks import Team

        return Team(here, timeout)
    if tasks := unused_tasks():
        console.print(
            f"[yellow]1 of SLURM's {tasks} tasks is used: "
            f"srun -n {tasks} starts a process for each[/]"
        )
    if (gpus := granted("SLURM_GPUS_ON_NODE")) > 1:
        console.print(
            f"[yellow]{gpus - 1} of {gpus} GPUs idle: "
            f"start one process for each (srun -n {gpus})[/]"
        )
    return Alone()


def _run(job: Job, run_dir: Path, command: str) -> None:
    until, leads = job.run.until, job.ranks.rank == 0
    current().planned(job.steps, until)
    _print_plan(job, in_full=False)
    check_missing(job.config, job.models, job.missing)
    with job.pool() as pool, session(job.config, run_dir) if leads else nullcontext() as tracker:
        if leads:
            remove_leftovers(run_dir)
            # Before anything is computed: the plan keeps `ddoq store gc` away.
            write_plan(run_dir, job.steps, add=True)
            for node in job.stale:
                job.store.discard(node)
        execute(
            [job.experiment.nodes.index, job.experiment.nodes.audit],
            job.store,
            job.compute,
            pool,
        )
        check_data(job.experiment, job.dataset, job.models, job.store)
        _say_leaks(job)
        if leads:
            index = job.store.manifest(job.experiment.nodes.index)["facts"]
            try_missing(job.missing, LabelSpace.from_facts(index), job.models)
        table = announced(job.experiment, job.store, job.targets, pool.size)
        execute(job.targets, job.store, job.compute, pool, table.finished)
        if until == "report" and leads:
            # Imports pandas, too, for those who want a report.
            from ddoq.report.run_page import write_report

            current().stage("report")
            write_report(job.experiment, job.store, job.steps, run_dir, tracker, command)


def _dataset(config: Mapping[str, Any], digests: Digests) -> ImageDataset:
    conf = config["dataset"]
    return build(conf, name=conf["name"], search=paths_of(config).data, digests=digests)


def fetch(config: Mapping[str, Any]) -> None:
    """Download the models and the data that a configuration needs, where that is possible."""
    models = Models(paths_of(config).models)
    for conf, key in networks_of(config):
        models.identify(conf, key)
    models.fetch(lambda line: console.print(line, markup=False))
    dataset = _dataset(config, Digests())
    console.print(f"dataset: {dataset.name}")
    dataset.fetch(dataset.search[0])


def print_data(job: Job) -> None:
    """Print what the data were taken for. They are opened where they have to be indexed,
    else the store says it.

    Raises:
        DataError: their classes and splits do not go together.
    """
    (index,) = (step for step in job.steps if step.node.stage == "index")
    if index.state == "idle" or job.ranks.rank:
        return
    if index.state == "miss":
        lines = recognised(job.dataset.examine(), job.dataset)
    else:
        lines = from_facts(job.store.manifest(index.node)["facts"])
    parts = [
        part
        for line in lines
        for part in wrap(line, 72, subsequent_indent="  ", break_on_hyphens=False)
    ]
    for number, part in enumerate(parts):
        console.print(f"{' ' * 8 if number else '  data: '}{part}", markup=False, soft_wrap=True)


def _print_plan(job: Job, in_full: bool) -> None:
    """Print one line per stage, or per node where the plan is all that was asked for."""
    console.print(f"[bold]{run_name(job.config)}[/]", soft_wrap=True)
    print_data(job)
    for remark in remarks(job.config, job.models):
        console.print(f"  {remark}", markup=False, soft_wrap=True)
    if in_full:
        table = Table("stage", "what", "state", "key", box=None, pad_edge=False)
        for step in job.steps:
            colour = {"hit": "green", "miss": "yellow", "idle": "dim"}[step.state]
            table.add_row(
                step.node.stage, step.node.title, f"[{colour}]{step.state}[/]", step.node.key
            )
        console.print(table)
        console.print(f"to compute: {expected(job.missing, job.store)}")
        _say_leaks(job)
        return
    states: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for step in job.steps:
        states[step.node.stage].append(step.state)
    parts = [f"{stage} {len(s) - s.count('miss')}/{len(s)}" for stage, s in states.items() if s]
    console.print("  in the store: " + "  ".join(parts), soft_wrap=True)
