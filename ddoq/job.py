"""One run: check, plan, execute, report."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.table import Table

from ddoq.config.checks import check, check_counts, check_paths
from ddoq.config.names import run_name
from ddoq.data.base import ImageDataset
from ddoq.pipeline.graph import STAGES, downstream, unique
from ddoq.pipeline.runner import Step, execute, plan
from ddoq.pipeline.store import Store
from ddoq.stages import compute
from ddoq.stages.evaluate import check_protocol
from ddoq.stages.graph import Experiment
from ddoq.stages.models import Models, check_classes, check_fit, networks_of
from ddoq.stages.runtime import Runtime, build
from ddoq.tracking import session
from ddoq.utils.console import console
from ddoq.utils.ranks import Alone, company


def run_job(config: Mapping[str, Any], run_dir: Path) -> None:
    """Do what a resolved configuration asks for; everything lands below ``paths.outputs``.

    Started by torchrun or srun, all processes come here and share the work; the first one speaks for them.

    Raises:
        DdoqError: with cause and remedy; finished artefacts stay.
    """
    check(config)
    check_paths(config)
    config = {name: part for name, part in config.items() if name != "hydra"}
    if config["run"]["fetch"]:
        fetch(config)
        return
    if config["run"]["plan_only"]:
        _run(config, run_dir, Alone())
        return
    ranks = _join()
    console.quiet = ranks.rank > 0
    try:
        _run(config, run_dir, ranks)
    except Exception as error:
        ranks.fail(error)
        raise


def _join() -> Alone:
    """Return the processes that compute this run; torch is only imported where there are several."""
    if company() == 1:
        return Alone()
    from ddoq.engine.ranks import Team

    return Team()


def _run(config: Mapping[str, Any], run_dir: Path, ranks: Alone) -> None:
    models = Models(config["paths"]["models"])
    runtime = Runtime(_dataset(config), models, ranks, **config["trainer"])
    # One process looks for the data first: it may have to download them.
    fingerprint = ranks.share(runtime.dataset.fingerprint() if ranks.rank == 0 else None)
    experiment = Experiment(config, fingerprint, models)
    store = Store(Path(config["paths"]["outputs"]) / "store")
    run = config["run"]
    targets = experiment.targets(run["until"])
    check_fit(config, models)
    experiment.check()
    console.print(f"[bold]{run_name(config)}[/]", soft_wrap=True)
    stale = downstream(unique(targets), run["from"]) if run["from"] else []
    steps = plan(targets, store, stale)
    _print_plan(steps, in_full=run["plan_only"])
    if run["plan_only"]:
        return
    missing = [step.node for step in steps if step.state == "miss"]
    models.require(missing)
    if missing:  # it imports torch, which a run that only reports does not need
        check_protocol(config)
    with session(config, run_dir) if ranks.rank == 0 else nullcontext() as tracker:
        if ranks.rank == 0:
            for node in stale:
                store.discard(node)
        execute([experiment.index], store, lambda *arguments: compute(*arguments, runtime), ranks)
        facts = store.manifest(experiment.index)["facts"]
        check_counts(config, facts)
        check_classes(config, models, facts)
        execute(targets, store, lambda *arguments: compute(*arguments, runtime), ranks)
        if run["until"] == "report" and ranks.rank == 0:
            from ddoq.report.write import write_report

            write_report(experiment, store, steps, run_dir, tracker)


def _dataset(config: Mapping[str, Any]) -> ImageDataset:
    folders = config["paths"]["data"]
    search = tuple(Path(folder) for folder in ([folders] if isinstance(folders, str) else folders))
    return build(config["dataset"], name=config["dataset"]["name"], search=search)


def fetch(config: Mapping[str, Any]) -> None:
    """Download the models and the data that a configuration needs, where that is possible."""
    models = Models(config["paths"]["models"])
    for conf, key in networks_of(config):
        models.identify(conf, key)
    models.fetch(console.print)
    dataset = _dataset(config)
    console.print(f"dataset: {dataset.name}")
    dataset.fetch(dataset.search[0])


def _print_plan(steps: list[Step], in_full: bool) -> None:
    """Print one line per stage, or per node where the plan is all that was asked for."""
    if in_full:
        table = Table("stage", "what", "state", "key", box=None, pad_edge=False)
        for step in steps:
            colour = {"hit": "green", "miss": "yellow", "idle": "dim"}[step.state]
            table.add_row(step.node.stage, step.node.title, f"[{colour}]{step.state}[/]", step.node.key)
        console.print(table)
        return
    states: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for step in steps:
        states[step.node.stage].append(step.state)
    parts = [f"{stage} {len(s) - s.count('miss')}/{len(s)}" for stage, s in states.items() if s]
    console.print("  in the store: " + "  ".join(parts), soft_wrap=True)
