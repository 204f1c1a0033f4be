"""Rows of results as a run writes them, without a run: what tables of many runs are tested on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ddoq.pipeline.keys import digest
from ddoq.utils.io import write_json, write_jsonl, write_text

_PARTS = {
    "full": (None, None, None),
    "random": ("random", "uniform", "real"),
    "d4m": ("d4m", "uniform", "dit"),
    "ddoq": ("kmeans", "mass", "dit"),
}
#: What rows lack that were written before tables of many runs existed.
NEW = (
    *(
        "space",
        "allocation",
        "redraw",
        "group_key",
        "arm_key",
        "recipe_key",
        "host",
        "git",
        "device",
        "num_bytes",
    ),
    *(
        "run_seed",
        "selection",
        "image_size",
        "dataset_key",
        "dataset_source",
        "num_classes",
        "num_train",
    ),
    *(
        "num_validation",
        "num_test",
        "w2_squared",
        "w2_squared_uniform",
        "variance",
        "held_out_distortion",
    ),
    *("image_seconds", "distil_seconds", "shared_seconds", "set_key", "peak_mib", "gpu_peak_mib"),
)


def row(
    top1: float = 0.5, arm: str = "ddoq", seed: int = 0, ipc: int = 10, **changed: Any
) -> dict[str, Any]:
    """Return a row; ``method`` is what changes a student and no other field says."""
    method = changed.pop("method", "")
    quantizer, weighting, generator = _PARTS[arm]
    found = {
        **{
            "dataset": "digits",
            "arm": arm,
            "ipc": ipc,
            "protocol": "smoke",
            "student": "convnet",
            "seed": seed,
        },
        **{"top1": top1, "top1_best": min(1, top1 + 0.1), "top5": None, "ece": 0.1, "nll": 1.0},
        **{
            "split": "test",
            "table": "main",
            "value": "",
            "quantizer": quantizer,
            "weighting": weighting,
        },
        **{
            "generator": generator,
            "strength": 0.2 if generator == "dit" else None,
            "labels": "hard",
            "teacher": None,
        },
        **{
            "num_images": 10 * ipc,
            "epochs": None,
            "num_steps": 20,
            "batch_size": 32,
            "learning_rate": 0.005,
        },
        **{
            "protocol_key": "p",
            "seconds": 2.0,
            "space": "latents",
            "allocation": "equal",
            "redraw": False,
        },
        **{
            "recipe_key": "r",
            "host": "here",
            "git": "abc",
            "device": "cpu",
            "num_bytes": 1000,
            "run_seed": 0,
        },
        **{
            "selection": "last",
            "image_size": 8,
            "dataset_key": "d",
            "dataset_source": "digits",
            "num_classes": 10,
        },
        **{
            "num_train": 1000,
            "num_validation": 100,
            "num_test": 500,
            "w2_squared": 1.0,
            "w2_squared_uniform": 2.0,
        },
        **{
            "variance": 4.0,
            "held_out_distortion": None,
            "image_seconds": 0.5,
            "distil_seconds": 10.0,
            "shared_seconds": 100.0,
        },
        **{"set_key": f"{arm}{ipc}", "peak_mib": 100.0, "gpu_peak_mib": None},
        **changed,
    }
    own = (
        "dataset",
        "arm",
        "protocol",
        "student",
        "labels",
        "teacher",
        "strength",
        "weighting",
        "table",
        "value",
    )
    meaning = [
        *(found[name] for name in own),
        ipc if arm != "full" else None,
        found["protocol_key"],
        method,
    ]
    digests = {
        "group_key": digest([*meaning, found["split"]]),
        "arm_key": digest([arm, ipc, found["weighting"], method]),
    }
    return digests | {"key": digest([*meaning, seed, found["split"]])} | found


def old(one: dict[str, Any]) -> dict[str, Any]:
    """Return a row as it was before."""
    return {name: value for name, value in one.items() if name not in NEW}


def write_run(
    outputs: Path, name: str, rows: list[dict[str, Any]], config: dict[str, Any] | None = None
) -> Path:
    """Write the folder of a run."""
    folder = outputs / "runs" / name
    write_jsonl(folder / "results.jsonl", [one for one in rows if one["split"] == "test"])
    write_jsonl(folder / "validation.jsonl", [one for one in rows if one["split"] != "test"])
    if config is not None:
        write_text(folder / "config.yaml", yaml.safe_dump(config))
    return folder


def write_sweep(outputs: Path, name: str, runs: list[str]) -> Path:
    """Write the folder of a sweep over runs."""
    points = [{"run": run, "overrides": [f"point={number}"]} for number, run in enumerate(runs)]
    sweep = {"name": name, "command": "ddoq -m <ipc>=1,2", "created": 0.0, "points": points}
    write_json(outputs / "sweeps" / name / "sweep.json", sweep)
    return outputs / "sweeps" / name
