"""Write the run's folder: rows, plan, configuration, the page,
and the way to the distilled data.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from rich.markup import escape

from ddoq.config.names import run_name
from ddoq.data.leaks import leak_words
from ddoq.experiment import Experiment
from ddoq.pipeline.graph import Step, unique
from ddoq.pipeline.plans import write_plan
from ddoq.pipeline.provenance import provenance
from ddoq.pipeline.store import Store
from ddoq.report import figures, tables
from ddoq.report.collect import class_rows, curves, effects, fidelities, lines, optimisations
from ddoq.report.comparisons import Pivot, pairings, pivot, scores
from ddoq.report.costs import arm_costs, stage_costs
from ddoq.report.rows import result_rows
from ddoq.report.tracked import tracked
from ddoq.stages.files import PER_IMAGE
from ddoq.tracking import Tracker
from ddoq.utils.console import console
from ddoq.utils.io import temporary_path, write_jsonl, write_text
from ddoq.utils.pages import templates

#: The tables of other evaluations, by what is varied.
PIVOTS = {
    "student": "Other students",
    "teacher": "Other teachers, soft labels",
    "labels": "Kinds of labels",
    "augmentation": "With and without augmentation",
}
#: What an index says of its images since a later day than its version,
#: and what it stands for where it is silent.
_SINCE = {
    "recognised": [],
    "ignored": {},
    "in_several_classes": [],
    "num_in_several_classes": 0,
    "num_deep": 0,
}
#: Stages whose facts are those of a model.
_OF_MODELS = ("fit_teacher", "check_teacher", "probe")
_CLASSES_SHOWN, _IMAGES_SHOWN, _ARMS_SHOWN = 20, 20, 12  # classes, images per class, images per arm


def write_report(
    experiment: Experiment, store: Store, steps: list[Step], run_dir: Path, tracker: Tracker
) -> None:
    """Write ``results.jsonl``, ``validation.jsonl``, ``config.yaml``, ``plan.json``, ``grid.png``,
    ``report.html`` and the link ``distilled``; print the table.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    rows = result_rows(experiment, store)
    write_jsonl(run_dir / "results.jsonl", [row for row in rows if row["split"] == "test"])
    write_jsonl(run_dir / "validation.jsonl", [row for row in rows if row["split"] != "test"])
    write_text(run_dir / "config.yaml", yaml.safe_dump(experiment.config, sort_keys=False))
    write_plan(run_dir, steps)
    distilled = store.path(
        next(e for e in experiment.entries if e.arm == experiment.main_name).label
    )
    _link(distilled, run_dir / "distilled")
    classes = _images(distilled)
    figures.grid(
        [[distilled / image["file_name"] for image in one["images"]] for one in classes],
        run_dir / "grid.png",
    )

    main, strengths = lines(experiment, store, "main"), lines(experiment, store, "strength")
    strength, followed = experiment.config["generator"].get("strength"), curves(experiment, store)
    curve = followed[-1] if followed else None
    spent = stage_costs(experiment, store, (step.node.key for step in steps if step.state == "hit"))
    pivots = {table: pivot(table, lines(experiment, store, table)) for table in PIVOTS}
    optimised = optimisations(experiment, store)
    context = {
        "name": run_name(experiment.config),
        "config": experiment.config,
        "main": main,
        "strengths": strengths,
        "weightings": lines(experiment, store, "weighting"),
        "effects": effects(experiment, main, strengths),
        "pairings": pairings(main),
        "pivots": {PIVOTS[table]: found for table, found in pivots.items() if found},
        "scores": scores(
            main, experiment.config["protocol"]["labels"], pivots["labels"], pivots["augmentation"]
        ),
        "fidelities": fidelities(experiment, store),
        "losses_figure": figures.losses_figure(optimised) if optimised else "",
        "entropy_figure": _entropy_figure(experiment, store),
        "arm_costs": arm_costs(experiment, store),
        "curve": curve,
        "curve_figure": figures.curve_figure(followed) if followed else "",
        "class_rows": class_rows(experiment, store, curve),
        "costs": spent,
        "models": _models(experiment, store),
        "leaks": store.manifest(experiment.nodes.audit)["facts"]["leaks"],
        "index": _SINCE | store.manifest(experiment.nodes.index)["facts"],
        "classes": classes,
        "gallery": _gallery(experiment, store),
        "steps": steps,
        "provenance": provenance(),
        "config_yaml": yaml.safe_dump(experiment.config, sort_keys=False),
        "accuracy_figure": figures.accuracy_figure(main),
        "strength_figure": figures.strength_figure(strengths, strength) if strengths else "",
        "total_seconds": sum(cost.seconds for cost in spent),
    }
    write_text(run_dir / "report.html", _page(context))
    tracker.log(tracked(experiment, store, rows, main, spent, {"distilled": run_dir / "grid.png"}))
    _print(experiment, main, pivots, _data(context["index"], context["leaks"]), run_dir)


def _page(context: dict) -> str:
    environment = templates(Path(__file__).parent)
    for shown in (
        tables.percent,
        tables.interval,
        tables.num_bytes,
        tables.score,
        tables.p_value,
        tables.decimal,
    ):
        environment.filters[shown.__name__] = shown
    for shown in (leak_words, tables.relative, tables.saved, tables.number, tables.training):
        environment.globals[shown.__name__] = shown
    return environment.get_template("page.html").render(context)


def _print(
    experiment: Experiment, main: list, pivots: dict[str, Pivot | None], data: str, run_dir: Path
) -> None:
    config = experiment.config
    protocol = config["protocol"]
    title = (
        f"{config['dataset']['name']}, IPC {config['ipc']}, {config['student']['name']}, "
        f"protocol {protocol['name']} "
        f"({protocol['labels']} labels, {tables.training(main[-1])}), mean ± std"
    )
    console.print()
    console.print(tables.main_table(main, title))
    for table, found in pivots.items():
        if found:
            console.print()
            console.print(
                tables.pivot_table(
                    found, f"{PIVOTS[table]}: top-1 %, mean ± std, n = {protocol['num_seeds']}"
                )
            )
    console.print(
        f"[dim]data: {escape(data)}; W2² is the squared Wasserstein-2 distance "
        "of the codebook to the latents, over their variance[/]"
    )
    console.print(
        f"\nreport     {run_dir / 'report.html'}\nresults    {run_dir / 'results.jsonl'}\n"
        f"distilled  {run_dir / 'distilled'}",
        soft_wrap=True,
        markup=False,  # a folder may be called [red]
    )


def _data(index: dict, leaks: list[dict]) -> str:
    remarks = [index["provenance"]]
    if index["num_skipped"]:
        remarks.append(f"{index['num_skipped']} unreadable images left out")
    if index["unexpected_counts"]:
        remarks.append(index["unexpected_counts"])
    remarks += [leak_words(leak) for leak in leaks if leak["of"] == "test"]
    return ", ".join(filter(None, remarks))


def _images(distilled: Path) -> list[dict]:
    """Return the first classes with their first images, heaviest first,
    and thumbnails for the page.
    """
    rows = pq.read_table(distilled / "metadata.parquet").to_pylist()
    classes: dict[int, dict] = {}
    for row in sorted(rows, key=lambda row: (row["label"], -row["weight"])):
        one = classes.setdefault(row["label"], {"name": row["class_name"], "images": []})
        if len(classes) <= _CLASSES_SHOWN and len(one["images"]) < _IMAGES_SHOWN:
            one["images"].append(
                row | {"url": figures.data_url(figures.thumbnail(distilled / row["file_name"]))}
            )
    return [one for one in classes.values() if one["images"]]


def _gallery(experiment: Experiment, store: Store) -> list[dict]:
    """Return one strip per arm and strength: the heaviest image of the first classes."""
    strips: dict[str, dict] = {}
    for entry in experiment.entries:
        label = entry.arm if entry.table == "main" else f"strength {entry.value}"
        if entry.label is None or entry.table == "weighting" or label in strips:
            continue
        folder = store.path(entry.label)
        heaviest: dict[int, dict] = {}
        for row in pq.read_table(folder / "metadata.parquet").to_pylist():
            if row["label"] not in heaviest or row["weight"] > heaviest[row["label"]]["weight"]:
                heaviest[row["label"]] = row
        files = [folder / heaviest[c]["file_name"] for c in sorted(heaviest)[:_ARMS_SHOWN]]
        strips[label] = {
            "label": label,
            "urls": [figures.data_url(figures.thumbnail(file)) for file in files],
        }
    return list(strips.values())


def _models(experiment: Experiment, store: Store) -> list[dict]:
    """Return the facts of the models that ddoq fitted or tried for this run."""
    found = []
    models = [
        experiment.nodes.encoder,
        experiment.nodes.fitted_generator(experiment.config["generator"]),
    ]
    models += [node for node in unique(experiment.targets("report")) if node.stage in _OF_MODELS]
    for node in models:
        if node is not None and store.has(node):
            manifest = store.manifest(node)
            found.append(
                {
                    "stage": node.stage,
                    "facts": manifest["facts"],
                    "seconds": manifest["cost"]["seconds"],
                }
            )
    return found


def _entropy_figure(experiment: Experiment, store: Store) -> str:
    """Return the label entropy of the main arm's images against their weights,
    where it was measured.
    """
    node = experiment.fidelity.get(experiment.main_name)
    if node is None:
        return ""
    images = pq.read_table(store.path(node) / PER_IMAGE).to_pydict()
    return figures.entropy_figure(images["weight"], images["entropy"])


def _link(source: Path, target: Path) -> None:
    """Let ``target`` name the folder ``source``: a relative link,
    or a copy where links are not allowed.

    It takes its name when it is whole: two processes may write the report of one run.
    """
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    aside = temporary_path(target)
    try:
        aside.symlink_to(os.path.relpath(source, target.parent), target_is_directory=True)
    except OSError:
        shutil.copytree(source, aside)
    os.replace(aside, target)
