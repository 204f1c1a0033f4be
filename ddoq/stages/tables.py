"""Which students a run trains: the entries of its tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from ddoq.config.evaluation import AugmentationConf

if TYPE_CHECKING:
    from ddoq.stages.graph import Entry, Experiment


def main_table(experiment: Experiment) -> Iterator[Entry]:
    """Yield every arm with every seed."""
    for name, arm in experiment.arms().items():
        for seed in experiment.seeds(experiment.config["protocol"]["num_seeds"]):
            yield experiment.entry(arm, name, seed, experiment.config["split"])


def comparisons(experiment: Experiment) -> Iterator[Entry]:
    """Yield the same arms with other students, teachers, labels, or without augmentation."""
    conf, protocol, split = (experiment.config[name] for name in ("compare", "protocol", "split"))
    soft = protocol if protocol["labels"] != "hard" else {**protocol, "labels": "soft"}
    plain = {**protocol, "augmentation": asdict(AugmentationConf())}
    tables = {
        "student": {name: {"student": student} for name, student in conf["students"].items()},
        "teacher": {name: {"teacher": one, "protocol": soft} for name, one in conf["teachers"].items()},
        "labels": {name: {"protocol": {**protocol, "labels": name}} for name in conf["labels"]},
        "augmentation": {"full": {}, "none": {"protocol": plain}} if conf["augmentation"] else {},
    }
    arms = {name: arm for name, arm in experiment.arms().items() if name in (conf["arms"] or experiment.arms())}
    for table, changes in tables.items():
        for name, arm in arms.items():
            # the full data are only ever trained on with hard labels
            for value, change in changes.items() if arm or table == "student" else ():
                for seed in experiment.seeds(protocol["num_seeds"]):
                    yield experiment.entry(arm, name, seed, split, table, value, change)


def ablations(experiment: Experiment) -> Iterator[Entry]:
    """Yield the main arm at other strengths and with other weightings, on the validation split."""
    conf, arm, name = experiment.config["ablation"], experiment.main_arm, experiment.main_name
    seeds = experiment.seeds(conf["num_seeds"])
    if arm["generator"].get("start", "noise") != "noise":  # else there is no strength to vary
        for strength in sorted({*conf["strengths"], arm["generator"]["strength"]} if conf["strengths"] else ()):
            generator = {**arm["generator"], "strength": strength}
            if strength == 0:
                generator = {"name": "decode", "_target_": "ddoq.generators.Decode"}
            other = {**arm, "generator": generator}
            for seed in seeds:
                yield experiment.entry(other, name, seed, "validation", "strength", f"{strength:g}")
    for value, weighting in conf["weightings"].items():
        for seed in seeds:
            yield experiment.entry({**arm, "weighting": weighting}, name, seed, "validation", "weighting", value)
