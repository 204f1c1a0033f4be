"""One run: check, plan, execute, report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from ddoq.config.checks import check, check_counts, check_paths
from ddoq.config.names import run_name
from ddoq.pipeline.graph import STAGES, downstream, unique
from ddoq.pipeline.runner import Step, execute, plan
from ddoq.pipeline.store import Store
from ddoq.stages import compute
from ddoq.stages.graph import Experiment
from ddoq.stages.runtime import Runtime, build
from ddoq.tracking import session
from ddoq.utils.console import console


def run_job(config: Mapping[str, Any], run_dir: Path) -> None:
    """Do what a resolved configuration asks for; everything lands below ``paths.outputs``.

    Raises:
        DdoqError: with cause and remedy; finished artefacts stay.
    """
    check(config)
    check_paths(config)
    config = {name: part for name, part in config.items() if name != "hydra"}
    runtime = _runtime(config)
    experiment = Experiment(config, runtime.dataset.fingerprint())
    store = Store(Path(config["paths"]["outputs"]) / "store")
    run = config["run"]
    targets = experiment.targets(run["until"])
    console.print(f"[bold]{run_name(config)}[/]", soft_wrap=True)
    stale = downstream(unique(targets), run["from"]) if run["from"] else []
    steps = plan(targets, store, stale)
    _print_plan(steps, in_full=run["plan_only"])
    if run["plan_only"]:
        return
    with session(config, run_dir) as tracker:
        for node in stale:
            store.discard(node)
        execute([experiment.index], store, lambda *arguments: compute(*arguments, runtime))
        check_counts(config, store.manifest(experiment.index)["facts"])
        execute(targets, store, lambda *arguments: compute(*arguments, runtime))
        if run["until"] == "report":
            from ddoq.report import write_report

            write_report(experiment, store, steps, run_dir, tracker)


def _runtime(config: Mapping[str, Any]) -> Runtime:
    folders = config["paths"]["data"]
    search = tuple(Path(folder) for folder in ([folders] if isinstance(folders, str) else folders))
    dataset = build(config["dataset"], name=config["dataset"]["name"], search=search)
    weights = {part: config[part].get("path") for part in ("encoder", "generator")}
    weights["features"] = config["space"].get("path")
    return Runtime(dataset, weights, **config["trainer"])


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
