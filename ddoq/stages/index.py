"""index: look at every image once; list the usable ones with their split; measure mean and deviation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ddoq.data.base import SPLITS
from ddoq.data.label_space import LabelSpace
from ddoq.pipeline.graph import Node
from ddoq.stages.runtime import Runtime
from ddoq.utils.console import console

VERSION = 2
_MOST_NAMED = 50  # unreadable files listed in the facts


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write ``index.parquet``; facts: the label space, counts per split and class, mean, std, skipped files."""
    from ddoq.data.indexed import write_index
    from ddoq.data.scan import remove_parts, scan_images
    from ddoq.data.splits import assign_splits

    spec, source = runtime.dataset, runtime.dataset.opened
    if source.unexpected_counts:
        console.print(f"[yellow]{spec.name}: {source.unexpected_counts}[/]", soft_wrap=True)
    moments, errors = scan_images(spec, folder, runtime.num_workers)
    usable = np.ones(len(source.labels), bool)
    usable[list(errors)] = False
    split = assign_splits(source, usable, spec)
    write_index(folder, source, split)
    remove_parts(folder)
    mean, square = moments[:, split == "train"].mean(1)
    counts = {
        name: np.bincount(source.labels[split == name], minlength=len(source.class_names)).tolist() for name in SPLITS
    }
    return LabelSpace.from_classes(source.class_names).to_facts() | {
        "counts": counts,
        "unexpected_counts": source.unexpected_counts,
        "mean": mean.tolist(),
        "std": np.sqrt(np.maximum(square - mean**2, 1e-6)).tolist(),
        "provenance": source.provenance,
        "num_skipped": len(errors),
        "skipped": [f"{source.describe(i)}: {errors[i]}" for i in sorted(errors)[:_MOST_NAMED]],
    }
