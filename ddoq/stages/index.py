"""index: look at every image once; list the usable ones with their split;
measure mean and deviation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape

from ddoq.data.base import Source, split_facts
from ddoq.data.copies import groups_of_equals, in_several, write_pictures
from ddoq.data.indexed import write_index
from ddoq.data.label_space import LabelSpace
from ddoq.data.recognised import recognised
from ddoq.data.scan import Scan, remove_parts, scan_images
from ddoq.data.splits import assign_splits
from ddoq.pipeline.care import remove_made_from
from ddoq.pipeline.graph import Node
from ddoq.pipeline.store import MANIFEST
from ddoq.stages.runtime import Runtime
from ddoq.utils.console import console
from ddoq.utils.io import read_json

_MOST_NAMED = 1000  # images listed in the facts


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write ``index.parquet`` and ``pictures.parquet``; facts: the label space, counts per split
    and class, mean, std, range of 16-bit and float pictures, what is left out.

    Raises:
        DataError: there are unreadable images, and ``on_bad_image=error``: all have been looked at,
            so that the same command with ``skip`` goes on from here, or what a class has for
            training is unreadable.
    """
    spec, source = runtime.dataset, runtime.dataset.examine()
    scan = scan_images(spec, folder, runtime.num_workers)
    usable = np.ones(len(source.labels), bool)
    usable[list(scan.errors)] = False
    skipped = [*source.unusable, *(scan.errors[i] for i in sorted(scan.errors))]
    copies = groups_of_equals(scan.digests, usable)
    split = assign_splits(source, usable, spec, copies)
    facts = LabelSpace.from_classes(source.class_names).to_facts() | {
        **split_facts(source, split),
        "num_skipped": len(skipped),
        "skipped": skipped[:_MOST_NAMED],
    }
    spec.check(facts)
    twice = in_several(copies, source.labels)
    for warning in [*_warnings(source, skipped, twice), *_scale_warnings(scan)]:
        console.print(f"[yellow]{spec.name}: {escape(warning)}[/]", soft_wrap=True)
    write_index(folder, source, split, scan.pixel_range)
    write_pictures(folder, usable, scan.digests, scan.likenesses)
    remove_parts(folder)
    mean, square = scan.moments[:, split == "train"].mean(1)
    measured = {"mean": mean.tolist(), "std": np.sqrt(np.maximum(square - mean**2, 1e-6)).tolist()}
    _remove_what_is_wrong(folder, facts | measured)
    return (
        facts
        | measured
        | {
            "unexpected_counts": source.unexpected_counts,
            "provenance": source.provenance,
            "recognised": recognised(source, spec),
            "ignored": dict(sorted(source.ignored.items())),
            "num_in_several_classes": len(twice),
            "pixel_range": scan.pixel_range and list(scan.pixel_range),
            "num_deep": len(scan.deep),
            "in_several_classes": [
                " = ".join(map(source.describe, group)) for group in twice[:_MOST_NAMED]
            ],
        }
    )


def _warnings(
    source: Source, skipped: Sequence[str], twice: Sequence[Sequence[int]]
) -> Iterator[str]:
    if source.unexpected_counts:
        yield source.unexpected_counts
    if skipped:
        yield f"unreadable images left out: {len(skipped)}, e.g. {skipped[0]}"
    if twice:
        yield (
            f"pictures in more than one class: {len(twice)}, "
            f"e.g. {' = '.join(map(source.describe, twice[0]))}"
        )
    if source.ignored:
        yield "beside the images, and left aside: " + ", ".join(
            f"{num} × {what}" for what, num in source.ignored.items()
        )


def _scale_warnings(scan: Scan) -> Iterator[str]:
    if not len(scan.deep):
        return
    black, white = scan.pixel_range
    yield (
        f"{len(scan.deep)} pictures of 16 bits or floats: "
        f"{black:g} is black and {white:g} white in all of them (dataset.pixel_range)"
    )
    if scan.num_clipped:
        yield (
            f"{scan.num_clipped} of them have values outside dataset.pixel_range, which are clipped"
        )


def _remove_what_is_wrong(folder: Path, facts: Mapping[str, Any]) -> None:
    """Remove what was made from an earlier index of this key,
    if that one had other splits or other pixels.
    """
    try:
        earlier = read_json(folder / MANIFEST)["facts"]
    except FileNotFoundError:
        return
    same_counts = earlier["counts"] == facts["counts"]
    if same_counts and all(
        np.allclose(earlier[name], facts[name], rtol=1e-6) for name in ("mean", "std")
    ):
        return
    removed = remove_made_from(folder.parents[1], folder.name)
    console.print(
        "[yellow]index: an earlier version gave these data other splits or other pixels: "
        f"{removed} artefacts that were made from it are removed[/]",
        soft_wrap=True,
    )
