"""index: look at every image once; list the usable ones with their split; measure mean and deviation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.markup import escape

from ddoq.data.base import Source, split_facts
from ddoq.data.label_space import LabelSpace
from ddoq.data.recognised import recognised
from ddoq.pipeline.graph import Node
from ddoq.stages.runtime import Runtime
from ddoq.utils.console import console

VERSION = 2
_MOST_NAMED = 1000  # images listed in the facts


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write ``index.parquet``; facts: the label space, counts per split and class, mean, std, what is left out.

    Raises:
        DataError: there are unreadable images, and ``on_bad_image=error``: all have been looked at, so that the same
            command with ``skip`` goes on from here, or what a class has for training is unreadable.
    """
    from ddoq.data.indexed import write_index
    from ddoq.data.scan import in_several_classes, remove_parts, scan_images
    from ddoq.data.splits import assign_splits

    spec, source = runtime.dataset, runtime.dataset.examine()
    scan = scan_images(spec, folder, runtime.num_workers)
    usable = np.ones(len(source.labels), bool)
    usable[list(scan.errors)] = False
    skipped = [*source.unusable, *(scan.errors[i] for i in sorted(scan.errors))]
    split = assign_splits(source, usable, spec)
    known = LabelSpace.from_classes(source.class_names).to_facts() | {
        **split_facts(source, split),
        "num_skipped": len(skipped),
        "skipped": skipped[:_MOST_NAMED],
    }
    spec.check(known)
    twice = in_several_classes(scan, source.labels)
    for warning in _warnings(source, skipped, twice):
        console.print(f"[yellow]{spec.name}: {escape(warning)}[/]", soft_wrap=True)
    write_index(folder, source, split)
    remove_parts(folder)
    mean, square = scan.moments[:, split == "train"].mean(1)
    return known | {
        "unexpected_counts": source.unexpected_counts,
        "mean": mean.tolist(),
        "std": np.sqrt(np.maximum(square - mean**2, 1e-6)).tolist(),
        "provenance": source.provenance,
        "recognised": recognised(source, spec),
        "ignored": dict(sorted(source.ignored.items())),
        "num_in_several_classes": len(twice),
        "in_several_classes": [" = ".join(map(source.describe, group)) for group in twice[:_MOST_NAMED]],
    }


def _warnings(source: Source, skipped: Sequence[str], twice: Sequence[Sequence[int]]) -> Iterator[str]:
    if source.unexpected_counts:
        yield source.unexpected_counts
    if skipped:
        yield f"unreadable images left out: {len(skipped)}, e.g. {skipped[0]}"
    if twice:
        yield f"pictures in more than one class: {len(twice)}, e.g. {' = '.join(map(source.describe, twice[0]))}"
    if source.ignored:
        yield "beside the images, and left aside: " + ", ".join(
            f"{num} × {what}" for what, num in source.ignored.items()
        )
