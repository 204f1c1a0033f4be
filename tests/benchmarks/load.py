"""A million latents of 1,000 classes through the store:
`python tests/benchmarks/load.py [latents] [dim] [classes]`.

Shards are written as ``encode`` writes them; then ``quantize``, and the hash of its input, run on
one thread: once with the images in the order of their classes, as folders have them, and once
shuffled. Seconds and peak memory of each step.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from ddoq.config.constructors import constructor
from ddoq.data.latents import LatentWriter
from ddoq.pipeline.cost import measure_cost
from ddoq.pipeline.graph import Node
from ddoq.pipeline.runner import execute
from ddoq.pipeline.store import Store
from ddoq.stages import quantize
from ddoq.stages.encode import SHARD_SIZE

IPC, BATCH = 10, 4096
KMEANS = "ddoq.quantizers.KMeans"


class Here:
    """What ``quantize`` asks of a runtime."""

    device = "cpu"


def encode(folder: Path, labels: np.ndarray, dim: int) -> dict:
    """Write one cloud of five modes per class, batch by batch."""
    writer, random = LatentWriter(folder, labels, SHARD_SIZE), torch.Generator().manual_seed(0)
    modes = torch.randn(int(labels.max()) + 1, 5, dim, generator=random)
    for start in range(0, len(labels), BATCH):
        some = torch.from_numpy(labels[start : start + BATCH])
        mode = torch.randint(5, (len(some),), generator=random)
        latents = modes[some, mode] + 0.5 * torch.randn(len(some), dim, generator=random)
        writer.add(torch.arange(start, start + len(some)), latents)
    writer.finish()
    return {"num": len(labels)}


@contextmanager
def told(what: str) -> Iterator[None]:
    """Print what the block cost."""
    before = time.process_time()
    with measure_cost() as cost:
        yield
    cpu = time.process_time() - before
    print(
        f"{what:<44} {cost['seconds']:8.1f} s "
        f"({cpu:6.1f} s of CPU)   peak {cost['peak_mib']:7.0f} MiB",
        flush=True,
    )


def measure(order: str, labels: np.ndarray, dim: int) -> None:
    """Print one line per step, for latents in an order."""
    first = Node(stage="encode", version=1, identity={"order": order})
    space = {"name": "latents", "representative": "mean"}
    identity = {
        "quantizer": {"name": "kmeans", "_target_": KMEANS} | constructor(KMEANS).defaults(),
        "space": space,
        "ipc": IPC,
        "allocation": "equal",
    }
    identity |= {"on_small_class": "error", "seed": 0, "num_folds": 0}
    second = Node(stage="quantize", version=1, identity=identity, inputs={"encode": first})

    def compute(node: Node, inputs: dict, folder: Path) -> dict:
        return (
            encode(folder, labels, dim)
            if node is first
            else quantize.run(node, inputs, folder, Here())
        )

    with tempfile.TemporaryDirectory() as place, threadpool_limits(1):
        with told(f"{order}: write and hash {len(labels):,} x {dim}"):
            execute([first], Store(Path(place)), compute)
        store = Store(Path(place))  # as another process would
        with told(f"{order}: hash before use"):
            store.intact(first)
        with told(f"{order}: k-means of {labels.max() + 1:,} classes, K = {IPC}"):
            execute([second], store, compute)


def main(num: int, dim: int, num_classes: int) -> None:
    """Measure both orders."""
    labels = np.sort(np.arange(num) % num_classes)
    measure("by class", labels, dim)
    measure("shuffled", np.random.default_rng(0).permutation(labels), dim)


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*given, *(1_000_000, 256, 1_000)[len(given) :])
