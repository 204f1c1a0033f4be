"""Our evaluator against DD-Ranking's, on a distilled folder of CIFAR-10:
`dd_ranking.py outputs/runs/<run>/distilled`.

The form of CIFAR-10 that the folder was made of is given by `--data`;
the README's rows are of the JPEG form.

Needs DD-Ranking (Li et al. 2025): `pip install --no-deps ddranking kornia kornia_rs tqdm pandas`,
or its checkout on PYTHONPATH (0.2.0 asks for numpy below 2 and scipy below 1.16; what is called
here runs with later ones). Its ConvNet-3 is trained and tested by the loops of its
LabelRobustScoreHard (its GeneralEvaluator ends with a NameError in 0.2.0), our ConvNet-D3 by ours:
with the same images, hard labels, no weights, and the same normalisation, initial weights, SGD,
batch size, epochs and steps of the rate. Two recipes: `plain` sees all images in every batch and
has no augmentation, so nothing is random and the two students should end as one; `dsa` has small
batches and DSA, where order and augmentation are each side's own.

Besides the distilled set: `random`, as many real images, drawn for every seed, for the improvement
over random; and `full`, the train split for as many gradient steps, by ours alone. Accuracies are
fractions of the test images; `best` is that of the best tenth epoch.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ddoq import load_distilled
from ddoq.data.builtin import CIFAR10
from ddoq.data.distilled import TrainingSet
from ddoq.data.images import to_uint8
from ddoq.engine.student import Normalize, train_student
from ddoq.errors import DataError, DdoqError
from ddoq.evaluation.augment import Augmentation
from ddoq.evaluation.protocol import Protocol
from ddoq.evaluation.ranking import hard_label_recovery, improvement_over_random, label_robust_score
from ddoq.evaluation.statistics import compare_paired, summarize
from ddoq.pipeline.provenance import provenance
from ddoq.students import ConvNet
from ddoq.utils.device import device_of
from ddoq.utils.seeding import item_generator, item_seed

try:
    from ddranking.aug import DSA
    from ddranking.metrics import LabelRobustScoreHard
    from ddranking.utils import build_model, validate
except ImportError as error:
    raise SystemExit(
        f"DD-Ranking cannot be imported: {error}\n"
        "  -> pip install --no-deps ddranking kornia kornia_rs tqdm pandas, "
        "or put its checkout on PYTHONPATH"
    ) from None

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "outputs" / "benchmarks" / "dd_ranking.json"
DATA = [
    Path(os.environ.get("DDOQ_DATA", "outputs/data")),
    ROOT / "data",
    ROOT.parent / "shared" / "data",
]
NUM_CLASSES, SIZE = 10, 32
INTERVAL = 10  # epochs between two tests: DD-Ranking's
DSA_STRATEGY = "color_crop_cutout_flip_scale_rotate"
DSA_RANGES = {"flip": 0.5, "rotate": 15.0, "saturation": 2.0, "brightness": 1.0, "contrast": 0.5}
DSA_RANGES |= {"scale": 1.2, "crop": 0.125, "cutout": 0.5}


Split = tuple[Tensor, Tensor]  # images and labels


@dataclass(frozen=True)
class Measured:
    """A trained student: accuracies as fractions, the network on the CPU, wall seconds."""

    last: float
    best: float
    network: nn.Module
    seconds: float


def read_cifar10(split: str, every: int = 1, root: Path | None = None) -> Split:
    """Return uint8 images ``[n, 3, 32, 32]`` and labels ``[n]`` of a split,
    or of every so many-th image.
    """
    source = CIFAR10("cifar10", SIZE, 3, search=tuple(DATA), root=root and str(root)).open()
    rows = np.flatnonzero(source.split == split)[::every].tolist()
    return torch.stack([to_uint8(source.read(i), SIZE, 3) for i in rows]), torch.from_numpy(
        source.labels[rows]
    )


def read_distilled(folder: Path) -> TrainingSet:
    """Return a distilled set of CIFAR-10 with hard labels and without weights:
    DD-Ranking knows no weights.
    """
    distilled = load_distilled(folder)
    images, num_classes = distilled.training_set().images, len(distilled.class_names)
    if (num_classes, *images.shape[1:]) != (NUM_CLASSES, 3, SIZE, SIZE):
        raise DataError(
            f"{folder} is no distilled CIFAR-10",
            "give the folder distilled/ of a run with dataset=cifar10",
        )
    return TrainingSet.of_images(images, distilled.labels, num_classes)


def recipes(num_images: int, epochs: int) -> dict[str, Protocol]:
    """Return the recipes by name."""
    options = {
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "epochs": epochs,
    }
    options |= {
        "schedule": "step",
        "schedule_by": "epoch",
        "milestones": (0.5,),
        "milestone_factor": 0.1,
    }
    options |= {"num_evaluations": epochs // INTERVAL}
    augmented = Protocol(batch_size=32, augmentation=Augmentation(dsa=DSA_STRATEGY), **options)
    return {"plain": Protocol(batch_size=num_images, **options), "dsa": augmented}


class TheirEvaluator(LabelRobustScoreHard):
    """DD-Ranking's evaluator on test images of our own: its constructor would download CIFAR-10.

    Its training and its test are called as they are.
    """

    def __init__(self, recipe: Protocol, test: Split, device: str):
        self.use_dist, self.rank, self.num_workers, self.device = False, 0, 0, device
        self.optimizer, self.momentum, self.weight_decay = (
            recipe.optimizer,
            recipe.momentum,
            recipe.weight_decay,
        )
        self.lr_scheduler, self.step_size = "step", recipe.epochs // 2
        self.num_epochs, self.test_interval, self.syn_batch_size = (
            recipe.epochs,
            INTERVAL,
            recipe.batch_size,
        )
        self.aug_func = DSA(dict(DSA_RANGES)) if recipe.augmentation.dsa else None
        self.class_map = {label: label for label in range(NUM_CLASSES)}
        self.test_loader_syn = DataLoader(TensorDataset(*test), batch_size=256)

    def train(
        self, network: nn.Module, images: Tensor, labels: Tensor, rate: float
    ) -> tuple[float, float]:
        """Train in place on normalised images; return the last
        and the best accuracy as fractions.
        """
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            best = self._compute_hard_label_metrics(network, images, None, rate, labels, mode="syn")
            last = validate(network, self.test_loader_syn, self.device, self.class_map)
        return last / 100, best / 100


def by_theirs(
    data: TrainingSet, test: Split, recipe: Protocol, normalize: Normalize, seed: int
) -> Measured:
    """Return DD-Ranking's student of a training set, measured by DD-Ranking."""
    device = device_of("auto")
    torch.manual_seed(item_seed(seed, "weights"))
    network = build_model("ConvNet-3", NUM_CLASSES, (SIZE, SIZE), device=device)
    torch.manual_seed(item_seed(seed, "theirs"))
    images, tested = (normalize(part.float() / 255) for part in (data.images, test[0]))
    start = time.perf_counter()
    evaluator = TheirEvaluator(recipe, (tested, test[1]), device)
    last, best = evaluator.train(network, images, data.labels, recipe.learning_rate)
    return Measured(last, best, network.cpu(), time.perf_counter() - start)


def by_ours(
    data: TrainingSet, test: Split, recipe: Protocol, normalize: Normalize, seed: int
) -> Measured:
    """Return our student of a training set, measured by us."""
    torch.manual_seed(item_seed(seed, "weights"))
    network, start = ConvNet(3, NUM_CLASSES, SIZE), time.perf_counter()
    measures = train_student(network, data, test, recipe, normalize, seed, "auto")
    return Measured(
        measures["top1"], measures["top1_best"], network.cpu(), time.perf_counter() - start
    )


@torch.inference_mode()
def distance(ours: nn.Module, theirs: nn.Module, images: Tensor) -> dict[str, float]:
    """Return the largest difference of two students' weights,
    and the share of images that they label alike.
    """
    pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    alike = ours.eval()(images).argmax(1) == theirs.eval()(images).argmax(1)
    return {
        "weights": max((a - b).abs().max().item() for a, b in pairs),
        "alike": alike.double().mean().item(),
    }


def random_set(images: Tensor, labels: Tensor, ipc: int, seed: int) -> TrainingSet:
    """Return as many real images of every class."""
    order = torch.randperm(len(labels), generator=item_generator(seed, "random"))
    rows = torch.cat([order[labels[order] == label][:ipc] for label in range(NUM_CLASSES)])
    return TrainingSet.of_images(images[rows], labels[rows], NUM_CLASSES)


def rows_of(
    distilled: TrainingSet, train: Split, test: Split, epochs: int, num_seeds: int
) -> Iterator[dict]:
    """Yield one row per recipe, set, seed and side;
    DD-Ranking's hold the ``distance`` from ours.
    """
    pixels = train[0].float() / 255
    normalize = Normalize(pixels.mean((0, 2, 3)).tolist(), pixels.std((0, 2, 3)).tolist())
    del pixels  # 600 MB
    num, normalized = len(distilled.images), normalize(test[0].float() / 255)
    everything = TrainingSet.of_images(*train, NUM_CLASSES)
    for recipe, protocol in recipes(num, epochs).items():
        for seed in range(num_seeds):
            sets = {"distilled": distilled}
            if recipe == "dsa":
                sets["random"] = random_set(*train, num // NUM_CLASSES, seed)
                steps = {"epochs": None, "num_steps": protocol.length(num), "schedule_by": "step"}
                full = by_ours(everything, test, replace(protocol, **steps), normalize, seed)
                yield row_of(recipe, "full", seed, "ours", full)
            for name, data in sets.items():
                ours, theirs = (
                    side(data, test, protocol, normalize, seed) for side in (by_ours, by_theirs)
                )
                apart = distance(ours.network, theirs.network, normalized)
                yield row_of(recipe, name, seed, "ours", ours)
                yield row_of(recipe, name, seed, "DD-Ranking", theirs) | apart


def row_of(recipe: str, data: str, seed: int, side: str, student: Measured) -> dict:
    """Return a student's row."""
    known = {"recipe": recipe, "set": data, "seed": seed, "side": side}
    return known | {"last": student.last, "best": student.best, "seconds": student.seconds}


def values(rows: list[dict], key: str, **known: str) -> list[float]:
    """Return a column of the rows where ``known`` holds, in the order of seeds."""
    return [row[key] for row in rows if all(row[name] == value for name, value in known.items())]


def table_of(rows: list[dict]) -> Table:
    """Return mean and standard deviation over seeds,
    and the paired difference ours - theirs, in percent.
    """
    table = Table("recipe", "set", "top-1 %", "ours", "DD-Ranking", "difference", box=None)
    for recipe, data in dict.fromkeys((row["recipe"], row["set"]) for row in rows):
        here = {"recipe": recipe, "set": data}
        for key in ("last", "best"):
            ours, theirs = (values(rows, key, side=side, **here) for side in ("ours", "DD-Ranking"))
            found = [summarize(ours)]
            if theirs:
                found += [summarize(theirs), compare_paired(ours, theirs).difference]
            table.add_row(
                recipe, data, key, *(f"{100 * one.mean:.2f} ± {100 * one.std:.2f}" for one in found)
            )
    return table


def scores(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Return HLR, IOR and LRS of each side, from mean last accuracies as fractions;
    HLR's full data are ours.
    """
    full, found = summarize(values(rows, "last", recipe="dsa", set="full")).mean, {}
    for side in ("ours", "DD-Ranking"):
        distilled, random = (
            summarize(values(rows, "last", recipe="dsa", set=data, side=side)).mean
            for data in ("distilled", "random")
        )
        hlr, ior = hard_label_recovery(full, distilled), improvement_over_random(distilled, random)
        found[side] = {"hlr": hlr, "ior": ior, "lrs": label_robust_score(ior, hlr)}
    return found


def main() -> None:
    """Train both sides on a folder; print the table and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "folder", type=Path, help="outputs/runs/<run>/distilled of a run on CIFAR-10"
    )
    parser.add_argument(
        "--data", type=Path, help="folder of CIFAR-10 (default: what dataset=cifar10 finds)"
    )
    parser.add_argument("--epochs", type=int, default=40, help="a multiple of 20 (default: 40)")
    parser.add_argument(
        "--seeds", type=int, default=3, help="students per side, at least 2 (default: 3)"
    )
    parser.add_argument(
        "--every", type=int, default=10, help="test on every so many-th test image (default: 10)"
    )
    asked, console = parser.parse_args(), Console(width=130)
    if asked.epochs < 1 or asked.epochs % (2 * INTERVAL):
        parser.error(
            "--epochs: the rate falls half-way and every tenth epoch is tested: "
            "give a multiple of 20"
        )
    try:
        distilled, train = read_distilled(asked.folder), read_cifar10("train", root=asked.data)
        test = read_cifar10("test", asked.every, asked.data)
    except DdoqError as error:
        raise SystemExit(str(error)) from None
    start, rows = time.perf_counter(), []
    for row in rows_of(distilled, train, test, asked.epochs, asked.seeds):
        console.print(
            {
                key: round(value, 6) if isinstance(value, float) else value
                for key, value in row.items()
            }
        )
        rows.append(row)
    version = next(
        (found.version for found in metadata.distributions(name="ddranking")), "a checkout"
    )
    done = {
        "folder": str(asked.folder),
        "images": len(distilled.images),
        "epochs": asked.epochs,
        "tested": len(test[0]),
    }
    done |= {
        "ddranking": version,
        "minutes": (time.perf_counter() - start) / 60,
        "scores": scores(rows),
    }
    console.print(table_of(rows), done)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(done | {"machine": provenance(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
