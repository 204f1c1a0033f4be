"""Training of students against the literature's loop over PNG files:
`make bench-students`, at 224 with DEVICE=cuda.

In each repetition every side runs once, in turn, in one process: torchvision's ImageFolder and
transforms on PIL images in a DataLoader, with workers that start at every epoch (torch's default)
or stay; the same with images decoded once into memory, without workers or with ones that stay; and
ours. Images, network, batch size, augmentation (RandomResizedCrop, flip, CutMix) and AdamW are the
same. The stock loop is the shortest there is: no accuracy, no sync. Wall seconds per epoch after a
warm-up: "views" up to the batch that the network sees, the other jobs with the network. Ours starts
a trainer and tests on ten images in every repetition, 0.1 s that a real training pays once, too.
Words select: cuda, tiny (a quick look at the smallest set, which is not stored), views, width32,
width128; on a GPU float32, bfloat16 in place of the widths.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from ddoq.data.distilled import TrainingSet, file_names, read_png, write_png
from ddoq.engine.student import Normalize, ViewMaker, train_student
from ddoq.engine.trainer import Steps
from ddoq.evaluation.augment import Augmentation
from ddoq.evaluation.protocol import Protocol
from ddoq.evaluation.views import Views
from ddoq.pipeline.provenance import provenance
from ddoq.students import ConvNet, TimmStudent

OUTPUT = Path(__file__).resolve().parents[2] / "outputs" / "benchmarks" / "students.json"
NUM_CLASSES, IPCS, REPEATS, SECONDS, MOST_EPOCHS = 10, (10, 50, 100), 5, 0.8, 50
SIZES = {"cpu": 32, "cuda": 224}
JOBS = {"cpu": ("views", "width32", "width128"), "cuda": ("views", "float32", "bfloat16")}
SCALE, MEAN, STD, RATE, DECAY = (0.5, 1.0), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 1e-3, 0.01
STOCK = "stock"
STOCK_STAYS = "stock, workers stay"
MEMORY = "stock, in memory"
MEMORY_STAYS = "stock, in memory, workers stay"
OURS = "ours"


def save_images(folder: Path, ipc: int, size: int) -> None:
    """Write class folders of PNGs: a smooth pattern per class,
    a weaker one per image, and noise.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(NUM_CLASSES).repeat_interleave(ipc)
    coarse = torch.randn(NUM_CLASSES, 3, 4, 4, generator=generator)[labels]
    coarse = coarse + 0.5 * torch.randn(coarse.shape, generator=generator)
    names = file_names(
        labels, torch.arange(ipc).repeat(NUM_CLASSES), [f"class {c}" for c in range(NUM_CLASSES)]
    )
    noise = torch.randn(len(labels), 3, size, size, generator=generator)

    def save(i: int) -> None:
        smooth = interpolate(coarse[i : i + 1], size=(size, size), mode="bicubic")[0]
        path = folder / names[i]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, (127.5 + 40 * smooth + 10 * noise[i]).clamp(0, 255).byte())

    with ThreadPoolExecutor() as pool:
        list(pool.map(save, range(len(names))))


class InMemory(ImageFolder):
    """An ImageFolder that decodes every file once."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.decoded = [self.loader(path) for path, _ in self.samples]

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(self.decoded[i]), self.targets[i]


def cutmix(images: Tensor, generator: np.random.Generator) -> tuple[Tensor, float]:
    """Paste a box of other images of the batch in place;
    return their rows and the share that is left.
    """
    partner = torch.from_numpy(generator.permutation(len(images))).to(images.device)
    size = images.shape[-1]
    half = int(size * (1 - generator.beta(1, 1)) ** 0.5) // 2
    centre = generator.integers(size, size=2)
    (top, left), (bottom, right) = (np.clip(centre + by, 0, size).tolist() for by in (-half, half))
    images[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    return partner, 1 - (bottom - top) * (right - left) / size**2


class Stock:
    """The literature's training on images of a loader."""

    def __init__(
        self, images: ImageFolder, batch_size: int, device: str, num_workers: int, stays: bool
    ):
        options = {
            "num_workers": num_workers,
            "persistent_workers": stays,
            "pin_memory": device == "cuda",
        }
        self.loader = DataLoader(images, batch_size, shuffle=True, **options)
        self.device, self.generator = device, np.random.default_rng(0)

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
        """Yield the mixed images of an epoch, labels, those of the partners,
        and the share of the former.
        """
        for images, labels in self.loader:
            images, labels = (part.to(self.device, non_blocking=True) for part in (images, labels))
            partner, share = cutmix(images, self.generator)
            yield images, labels, labels[partner], share

    def show(self, network: nn.Module, epochs: int) -> None:
        """Let a network see the batches."""
        for _ in range(epochs):
            for images, *_ in self.batches():
                network(images)

    def train(self, network: nn.Module, epochs: int, precision: str) -> None:
        """Train a network in place."""
        optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        for _ in range(epochs):
            for images, labels, others, share in self.batches():
                with torch.autocast(self.device, torch.bfloat16, enabled=precision == "bfloat16"):
                    logits = network(images)
                    loss = share * cross_entropy(logits, labels) + (1 - share) * cross_entropy(
                        logits, others
                    )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            rates.step()


class Ours:
    """Our training on the same images."""

    def __init__(self, data: TrainingSet, batch_size: int, device: str):
        self.data, self.device, self.normalize = data, device, Normalize(MEAN, STD)
        augmentation = Augmentation(crop_scale=SCALE, flip=True, cutmix=1.0)
        options = {
            "learning_rate": RATE,
            "weight_decay": DECAY,
            "num_evaluations": 1,
            "augmentation": augmentation,
        }
        self.protocol = partial(Protocol, batch_size, **options)

    def show(self, network: nn.Module, epochs: int) -> None:
        """Let a network see the batches."""
        protocol = self.protocol(epochs=epochs)
        views = Views(protocol, len(self.data.images), self.data.images.shape[-1], 0)
        maker = ViewMaker(self.data.images, protocol, self.normalize).to(self.device)
        steps = Steps(
            lambda s: {"rows": views.places(s)[0], "draws": views.draws(s)}, 0, views.num_steps
        )
        for batch in DataLoader(steps, batch_size=None):
            draws = {name: draw.to(self.device) for name, draw in batch["draws"].items()}
            network(self.normalize(maker({"rows": batch["rows"].to(self.device), "draws": draws})))

    def train(self, network: nn.Module, epochs: int, precision: str) -> None:
        """Train a network in place; it is tested on ten images, once."""
        test = (
            self.data.images[:: len(self.data.images) // 10],
            self.data.labels[:: len(self.data.images) // 10],
        )
        accelerator = "gpu" if self.device == "cuda" else "cpu"
        protocol = self.protocol(epochs=epochs, precision=precision)
        train_student(network, self.data, test, protocol, self.normalize, 0, accelerator)


@dataclass
class Side:
    """One way to do a job; ``seconds`` are per epoch, one number per repetition."""

    method: str
    work: Callable[[nn.Module, int], None]
    epochs: int = 1
    seen: list[int] = field(default_factory=list)  # images of each step of the last run
    losses: tuple[float, float] | None = None  # before and after the last training, on plain images
    seconds: list[float] = field(default_factory=list)


def sides_of(
    job: str, folder: Path, data: TrainingSet, batch_size: int, device: str
) -> Iterator[Side]:
    """Yield the sides of a job."""
    steps = [
        transforms.RandomResizedCrop(data.images.shape[-1], SCALE),
        transforms.RandomHorizontalFlip(),
    ]
    transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    files, decoded = ImageFolder(folder, transform), InMemory(folder, transform)
    workers = min(8, os.cpu_count() or 1) if device == "cuda" else 2
    stock = {STOCK: (files, workers, False), STOCK_STAYS: (files, workers, True)}
    stock |= {MEMORY: (decoded, 0, False), MEMORY_STAYS: (decoded, workers, True)}
    ways = {
        method: Stock(images, batch_size, device, *options)
        for method, (images, *options) in stock.items()
    }
    for method, way in (ways | {OURS: Ours(data, batch_size, device)}).items():
        if job == "width128" and method in (STOCK_STAYS, MEMORY_STAYS):
            continue  # the network takes nearly all of the time
        precision = job if job == "bfloat16" else "float32"
        yield Side(method, way.show if job == "views" else partial(way.train, precision=precision))


def network_of(job: str) -> nn.Module:
    """Return a student, the same at every call; nothing for the views alone."""
    torch.manual_seed(0)
    if job == "views":
        return nn.Identity()
    if job.startswith("width"):
        return ConvNet(3, NUM_CLASSES, 32, width=int(job.removeprefix("width")))
    return TimmStudent(3, NUM_CLASSES, 224, "resnet18")


@torch.no_grad()
def loss_of(network: nn.Module, data: TrainingSet, device: str) -> float:
    """Return the loss on plain images; in training mode,
    as a few steps are too few for batch norm's averages.
    """
    images = Normalize(MEAN, STD)(data.images[:: len(data.images) // 100].float() / 255)
    return cross_entropy(
        network.to(device).train()(images.to(device)),
        data.labels[:: len(data.images) // 100].to(device),
    ).item()


def run(side: Side, job: str, data: TrainingSet, device: str) -> float:
    """Return the wall seconds of an epoch; what the network saw
    and learned is noted outside of them.
    """
    network = network_of(job).to(device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    before = loss_of(network, data, device) if job != "views" else 0.0
    side.seen.clear()
    hook = network.register_forward_pre_hook(
        lambda module, arguments: side.seen.append(len(arguments[0])) if module.training else None
    )
    wait()
    start = time.perf_counter()
    side.work(network, side.epochs)
    wait()
    seconds = (time.perf_counter() - start) / side.epochs
    hook.remove()
    side.losses = (before, loss_of(network, data, device)) if job != "views" else None
    return seconds


def measure(sides: list[Side], job: str, data: TrainingSet, device: str, tiny: bool) -> None:
    """Run every side to warm up and to see how many epochs to measure, then all of them in turn."""
    for side in sides:
        seconds = run(side, job, data, device)
        if seconds < SECONDS:  # else what the first run has to load does not count
            seconds = run(side, job, data, device)
        side.epochs = 2 if tiny else min(MOST_EPOCHS, max(1, round(SECONDS / seconds)))
    for _ in range(1 if tiny else REPEATS):
        for side in sides:
            side.seconds.append(run(side, job, data, device))


def rows_of(sides: list[Side], batch_size: int, num_images: int) -> Iterator[dict]:
    """Yield a line per side; ratios are taken within each repetition: median, least, most."""
    for side in sides:
        row = {
            "method": side.method,
            "batch_size": batch_size,
            "images": num_images,
            "epochs": side.epochs,
        }
        row |= {"milliseconds": 1000 * statistics.median(side.seconds)}
        row["spread"] = [1000 * min(side.seconds), 1000 * max(side.seconds)]
        for key, slow, fast in (("over_stock", sides[0], side), ("ours_over", side, sides[-1])):
            ratios = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
            row[key] = [statistics.median(ratios), min(ratios), max(ratios)]
        steps = -(-num_images // batch_size)
        row["steps"], row["losses"] = len(side.seen) / side.epochs, side.losses
        learns = side.losses is None or side.losses[1] < side.losses[0]  # not where it is NaN
        row["agrees"] = (
            len(side.seen) == steps * side.epochs
            and sum(side.seen) == num_images * side.epochs
            and learns
        )
        yield row


def table_of(title: str, rows: list[dict]) -> Table:
    """Return the lines of a job for the console."""
    columns = (
        "IPC",
        "method",
        "steps",
        "epochs",
        "ms/epoch",
        "min-max",
        "× stock",
        "ours × this",
        "loss before, after",
    )
    table = Table(*columns, title=title, title_justify="left", box=None)
    for row in rows:
        cells = [
            str(row["ipc"]),
            row["method"],
            f"{row['steps']:g}",
            str(row["epochs"]),
            f"{row['milliseconds']:.1f}",
        ]
        cells += ["{:.1f}-{:.1f}".format(*row["spread"])]
        cells += ["{:.2f} ({:.2f}-{:.2f})".format(*row[key]) for key in ("over_stock", "ours_over")]
        cells += ["" if row["losses"] is None else "{:.2f}, {:.2f}".format(*row["losses"])]
        table.add_row(*cells, "" if row["agrees"] else "OTHER WORK")
    return table


def training_set(folder: Path, ipc: int) -> TrainingSet:
    """Return the images of class folders in memory."""
    images = torch.stack([read_png(path) for path in sorted(folder.rglob("*.png"))])
    return TrainingSet.of_images(
        images, torch.arange(NUM_CLASSES).repeat_interleave(ipc), NUM_CLASSES
    )


def main(words: list[str]) -> None:
    """Run some jobs, or all; print and write their rows. Rows of other devices and jobs stay."""
    device = "cuda" if "cuda" in words else "cpu"
    tiny = "tiny" in words
    console = Console(width=180)
    torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32, in convolutions too
    if device == "cpu":
        torch.set_num_threads(min(2, torch.get_num_threads()))
    found, name = provenance(), "CPU" if device == "cpu" else torch.cuda.get_device_name()
    here = {
        "device": name,
        "threads": torch.get_num_threads(),
        "repetitions": REPEATS,
        "image_size": SIZES[device],
    }
    here |= {
        key: (found | found["packages"])[key]
        for key in ("git", "dirty", "machine", "torch", "lightning")
    }
    console.print(here)
    with tempfile.TemporaryDirectory() as root:
        for ipc in IPCS[:1] if tiny else IPCS:
            save_images(Path(root) / str(ipc), ipc, SIZES[device])
        for job in [job for job in JOBS[device] if job in words] or JOBS[device]:
            lines = []
            for folder in sorted(Path(root).iterdir(), key=lambda path: int(path.name)):
                ipc, batch_size = int(folder.name), 50 if int(folder.name) == 10 else 100  # RDED's
                data = training_set(folder, ipc)
                sides = list(sides_of(job, folder, data, batch_size, device))
                measure(sides, job, data, device, tiny)
                lines += [
                    {**here, "job": job, "ipc": ipc, **row}
                    for row in rows_of(sides, batch_size, len(data.images))
                ]
            console.print(table_of(f"{job}, {SIZES[device]} pixels", lines))
            if not tiny:
                old = json.loads(OUTPUT.read_text())["rows"] if OUTPUT.exists() else []
                kept = [row for row in old if (row["device"], row["job"]) != (name, job)]
                OUTPUT.parent.mkdir(parents=True, exist_ok=True)
                OUTPUT.write_text(json.dumps({"machine": found, "rows": kept + lines}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
