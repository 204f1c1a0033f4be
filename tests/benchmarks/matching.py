"""One step of DM and of DSA against the official loop: `make bench-matching PEER=FOLDER`.

FOLDER is a clone of github.com/VICO-UoE/DatasetCondensation at commit 53f63a6, which is not part of
this repository. Its `main_DM.py` and `main.py` run as they are, in this process, but for what they
read (images at random instead of a download), what they evaluate (nothing) and how many steps a
network of DSA serves (one, so that a step is a step). A step begins where the loop asks for a
network and ends where it asks for the next; between the two, ours makes one, too. Networks, images,
batches and threads (one) are alike; seconds are those of the CPU. Losses are compared without
augmentation, on all images of a class, with the weights of the loop's first network: as many digits
as it prints.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from importlib import import_module, reload
from io import StringIO
from pathlib import Path

import scipy.ndimage
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ddoq.distillers import DC, DM, Distiller, Task
from ddoq.distillers.synthetic import Synthetic
from ddoq.pipeline.provenance import provenance
from ddoq.students import ConvNet
from ddoq.utils.seeding import item_seed

OUTPUT = Path(__file__).resolve().parents[2] / "outputs" / "benchmarks" / "matching.json"
COMMIT = "53f63a672eab9ade02aabe6432706ef56f317d64"
NUM_CLASSES, SIDE, MEAN, STD = 10, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
DSA = "color_crop_cutout_flip_scale_rotate"
WARM_UP = 2
LOSS = re.compile(r"iter = 0+, loss = ([\d.]+)")
#: By method: the file of the loop, its words, ours.
METHODS: dict[str, tuple[str, list[str], Callable[..., Distiller]]] = {
    "DM": ("main_DM", [], lambda **options: DM(learning_rate=1.0, **options)),
    "DSA": (
        "main",
        ["--init", "real"],
        lambda **options: DC(learning_rate=0.1, loops=1, epochs=1, **options),
    ),
}


class Loop:
    """The official loop of a method.

    Args:
        file: its name, without the ending.
        task: whose training images it gets.
        on_step: called before each step, outside of its time.

    Attributes:
        seconds: of each step but the last.
        images: the synthetic ones before the first step, ``[n, C, H, W]``.
        network: that of the first step.
    """

    def __init__(self, file: str, task: Task, on_step: Callable[[], None]):
        self.module, self.task, self.on_step = reload(import_module(file)), task, on_step
        self.seconds: list[float] = []
        self.images: Tensor | None = None
        self.network: nn.Module | None = None
        self._begun = 0.0

    def run(self, words: list[str]) -> float:
        """Run it with the words of a command line; return its first loss."""
        told, make_network = StringIO(), self.module.get_network
        changed = {
            "get_dataset": self._dataset,
            "evaluate_synset": self._evaluate,
            "get_network": lambda *how: self._network(make_network, *how),
        }
        if hasattr(self.module, "get_loops"):
            changed["get_loops"] = lambda ipc: (1, 1)
        vars(self.module).update(changed)
        sys.argv = [self.module.__name__, *words]
        with tempfile.TemporaryDirectory() as folder, chdir(folder), redirect_stdout(told):
            self.module.main()
        return float(LOSS.search(told.getvalue())[1])

    def _dataset(self, *_: str) -> tuple:
        images = self.task.normalized(torch.arange(len(self.task.images)))
        data = list(zip(images, self.task.labels.tolist(), strict=True))
        names = [str(label) for label in range(NUM_CLASSES)]
        return 3, (SIDE, SIDE), NUM_CLASSES, names, MEAN, STD, data, [], []

    def _evaluate(self, _: int, network: nn.Module, images: Tensor, *__) -> tuple:
        self.images = images
        return network, 0.0, 0.0

    def _network(self, make: Callable[..., nn.Module], *how) -> nn.Module:
        if self.images is None:  # of the evaluation before the first step
            return make(*how)
        if self._begun:
            self.seconds.append(time.process_time() - self._begun)
        self.on_step()
        self._begun = time.process_time()
        network = make(*how)
        self.network = self.network or network
        return network


class Ours:
    """The same steps by a method of ours, each timed."""

    def __init__(self, method: Distiller, task: Task):
        self.method, self.task, self.seconds = method, task, []
        method.begin(task)
        self.optimizer = method.optimizer(task.synthetic)

    def step(self) -> None:
        """Make the next step."""
        begun = time.process_time()
        batch = self.method.batch(self.task, len(self.seconds))
        self.method.step(self.task, batch, self._update)
        self.seconds.append(time.process_time() - begun)

    def _update(self, *closures: Callable[[], Tensor]) -> None:
        self.optimizer.zero_grad()
        for closure in closures:
            closure().backward()
        self.optimizer.step()


def make_task(num_images: int, ipc: int, width: int) -> Task:
    """Return the task of distilling classes of so many images at random each."""
    shape, random = (NUM_CLASSES * num_images, 3, SIDE, SIDE), torch.Generator().manual_seed(0)

    def make_network(*parts: object) -> nn.Module:
        torch.manual_seed(item_seed("matching", *parts))
        return ConvNet(3, NUM_CLASSES, SIDE, width=width)

    return Task(
        torch.randint(256, shape, dtype=torch.uint8, generator=random),
        torch.arange(NUM_CLASSES).repeat_interleave(num_images),
        num_classes=NUM_CLASSES,
        ipc=ipc,
        mean=torch.tensor(MEAN),
        std=torch.tensor(STD),
        make_network=make_network,
        seed=0,
    )


def losses(name: str, ipc: int, batch: int, width: int) -> tuple[float, float]:
    """Return the mean loss of a class by the official loop, and by ours from the same state."""
    file, words, make = METHODS[name]
    task = make_task(batch, ipc, width)
    loop = Loop(file, task, on_step=lambda: None)
    sizes = ["--ipc", ipc, "--batch_real", batch, "--model", f"ConvNetW{width}"]
    plain = ["--dsa_strategy", "none", "--Iteration", 0, "--num_exp", 1, "--num_eval", 1]
    theirs = loop.run([*words, *map(str, sizes + plain)])
    pairs = zip(loop.network.parameters(), task.network(0).parameters(), strict=True)
    assert all(a.shape == b.shape for a, b in pairs)

    def same_network(*_: object) -> nn.Module:
        network = ConvNet(3, NUM_CLASSES, SIDE, width=width)
        weights = nn.utils.parameters_to_vector(loop.network.parameters())
        nn.utils.vector_to_parameters(weights.detach(), network.parameters())
        return network

    task._make_network = same_network
    method, total = make(num_steps=1, dsa="", batch_size=batch), []
    method.begin(task)
    images = loop.images.unflatten(0, (NUM_CLASSES, ipc))
    task.synthetic = Synthetic(images, torch.full(images.shape[:2], -1))
    method.step(task, method.batch(task, 0), lambda *parts: total.extend(part() for part in parts))
    return theirs, sum(part.item() for part in total) / NUM_CLASSES


def times(name: str, ipc: int, batch: int, width: int, steps: int) -> tuple[list, list]:
    """Return the seconds of steps of the official loop and of ours, made in turn."""
    file, words, make = METHODS[name]
    task = make_task(2 * batch, ipc, width)
    ours = Ours(make(num_steps=steps, dsa=DSA, batch_size=batch), task)
    loop = Loop(file, task, on_step=ours.step)
    words = [*words, *(["--method", "DSA"] if name == "DSA" else []), "--dsa_strategy", DSA]
    sizes = ["--ipc", ipc, "--batch_real", batch, "--model", f"ConvNetW{width}"]
    length = ["--Iteration", steps + WARM_UP, "--num_exp", 1, "--num_eval", 1]
    loop.run([*words, *map(str, sizes + length)])
    return loop.seconds[WARM_UP:], ours.seconds[WARM_UP : len(loop.seconds)]


def open_peer(folder: Path) -> None:
    """Make the files of the clone importable, at the commit that is compared with."""
    git = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    if commit != COMMIT:
        sys.exit(f"--peer: {folder} is at {commit[:7]}\ngit -C {folder} checkout {COMMIT[:7]}")
    sys.path.insert(0, str(folder.resolve()))
    # where its first import looks for what SciPy has moved
    sys.modules.setdefault("scipy.ndimage.interpolation", scipy.ndimage)


def main() -> None:
    """Print the table; write it beside the other benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True, help="a clone, see the file's head")
    parser.add_argument("--width", type=int, default=32, choices=(32, 64, 128))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--steps", type=int, default=15)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of the loop's calls that have aged
    open_peer(options.peer)
    sizes = {name: getattr(options, name) for name in ("ipc", "batch", "width")}
    head = ("method", "loss: official", "ours", "ms per step: official", "ours", "times faster")
    table, rows = Table(*head, title=str(sizes)), []
    for name in METHODS:
        loss = losses(name, **sizes)
        theirs, ours = times(name, **sizes, steps=options.steps)
        ratios = sorted(a / b for a, b in zip(theirs, ours, strict=True))
        rows.append({"method": name, **sizes, "losses": loss, "official": theirs, "ours": ours})
        middles = [f"{1000 * statistics.median(own):.0f}" for own in (theirs, ours)]
        faster = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}, {ratios[-1]:.2f})"
        table.add_row(name, f"{loss[0]:.4f}", f"{loss[1]:.4f}", *middles, faster)
    Console().print(table)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"provenance": provenance(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
