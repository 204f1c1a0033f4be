"""index: look at every image once; list the usable ones with their split; measure mean and deviation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ddoq.data.base import SPLITS
from ddoq.errors import DataError
from ddoq.pipeline.graph import Node
from ddoq.stages.runtime import Runtime
from ddoq.utils.console import progress_bar

VERSION = 1
_MOST_NAMED = 50  # unreadable files listed in the facts


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write ``index.parquet``; facts: class names, counts per split and class, mean, std, skipped files."""
    from ddoq.data.images import UNREADABLE, to_uint8
    from ddoq.data.indexed import write_index
    from ddoq.data.splits import assign_splits

    spec = runtime.dataset
    source = spec.open()
    usable = np.ones(len(source.labels), bool)
    moments = np.zeros((2, len(usable), spec.channels))  # mean and mean square of every image
    skipped: list[str] = []
    with progress_bar("look at every image", len(usable)) as bar:
        for i in range(len(usable)):
            try:
                image = to_uint8(source.read(i), spec.image_size, spec.channels).numpy() / 255.0
            except UNREADABLE as error:
                usable[i] = False
                skipped.append(f"{source.describe(i)}: {type(error).__name__}: {error}")
                if spec.on_bad_image == "error":
                    raise DataError(
                        f"dataset: {source.describe(i)} cannot be read ({error})",
                        "repair or remove it, or set dataset.on_bad_image=skip",
                    ) from error
            else:
                moments[:, i] = image.mean((1, 2)), (image**2).mean((1, 2))
            bar.advance()
    split = assign_splits(source, usable, spec)
    write_index(folder, source, split)
    mean, square = moments[:, split == "train"].mean(1)
    counts = {
        name: np.bincount(source.labels[split == name], minlength=len(source.class_names)).tolist() for name in SPLITS
    }
    return {
        "class_names": source.class_names,
        "wnids": source.wnids,
        "counts": counts,
        "mean": mean.tolist(),
        "std": np.sqrt(np.maximum(square - mean**2, 1e-6)).tolist(),
        "provenance": source.provenance,
        "num_skipped": len(skipped),
        "skipped": skipped[:_MOST_NAMED],
    }
