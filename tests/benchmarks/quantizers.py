"""Quantizers against scikit-learn, faiss and POT:
`make bench-quantizers`, or with the names of some sections.

Both sides run in one process, interleaved, on one thread each; times are CPU seconds, medians over
seeds. Distortions are recomputed from the centroids and divided by the variance of the class.
Writes outputs/benchmarks/quantizers.json.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import latents
import numpy as np
import ot
import torch
from rich.console import Console
from rich.table import Table
from sklearn.cluster import KMeans as Sklearn
from threadpoolctl import threadpool_limits

from ddoq.pipeline.provenance import provenance
from ddoq.quantizers import D4M, Barycenter, KMeans, PointCloud, Quantizer
from ddoq.quantizers.measures import w2_squared

OUTPUT = latents.CACHE.parent / "quantizers.json"
KS, REPEATS = (10, 50, 100, 200), 5


def timed(work: Callable, *arguments) -> tuple[float, np.ndarray]:
    """Return the CPU seconds and the result of a call."""
    start = time.process_time()
    result = work(*arguments)
    return time.process_time() - start, result


def generator(seed: int) -> torch.Generator:
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


def distortion(points: np.ndarray, centroids: np.ndarray) -> float:
    """Return the mean squared distance to the nearest centroid over the variance."""
    cloud = PointCloud(torch.from_numpy(points))
    moved = cloud.from_tensor(torch.from_numpy(np.asarray(centroids, np.float32)))
    return float(cloud.mass @ cloud.squared_distances(moved).min(1)) / cloud.variance


def ours(quantizer: Quantizer, latents: torch.Tensor | PointCloud, seed: int) -> np.ndarray:
    """Return the centroids of one of our quantizers."""
    return quantizer.fit(latents, generator(seed)).centroids.numpy()


def run_sklearn(points: np.ndarray, num: int, seed: int) -> np.ndarray:
    """Return the centroids of scikit-learn with one start."""
    return Sklearn(num, n_init=1, random_state=seed).fit(points).cluster_centers_


def run_pot(points: np.ndarray, mass: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the atoms of POT's barycentre, with its default stopping rule."""
    return ot.lp.free_support_barycenter([points], [mass], start)


def run_faiss(points: np.ndarray, num: int, seed: int) -> np.ndarray:
    """Return the centroids of one run of faiss, 20 iterations."""
    options = {"min_points_per_centroid": 1, "max_points_per_centroid": len(points)}
    engine = faiss.Kmeans(points.shape[1], num, niter=20, seed=seed, **options)
    engine.train(points)
    return engine.centroids


def small_sets() -> Iterator[tuple[str, np.ndarray]]:
    """Classes with fewer latents than dimensions."""
    yield "synthetic 1300 × 4096", latents.synthetic(1300, 32, 0)
    yield "synthetic 1300 × 16384", latents.synthetic(1300, 64, 0)
    if latents.SHARED.is_dir():
        yield "ImageNette tench, tiny VAE, 963 × 8192", latents.imagenette(0)


def large_sets() -> Iterator[tuple[str, np.ndarray]]:
    """Classes too large for a Gram matrix."""
    if latents.SHARED.is_dir():
        yield "Fashion-MNIST shirts, 6000 × 784", latents.fashion_mnist(6)
        yield "CIFAR-10 cats, 5000 × 3072", latents.cifar10(3)
        yield "Fashion-MNIST, all classes, 60000 × 784", latents.fashion_mnist()
    else:
        yield "synthetic 6000 × 1024", latents.synthetic(6000, 16, 0)


def bench_kmeans() -> Iterator[dict]:
    """Ours with 1 and 10 starts against scikit-learn with 1 and 10 and one run of faiss.

    Ten starts of scikit-learn are ten runs with one:
    their times are summed, the best distortion counts.
    """
    for name, points in small_sets():
        tensor = torch.from_numpy(points)
        for num in KS:
            runs: dict[str, list] = {
                "sklearn": [],
                "faiss": [],
                "ours, 1 start": [],
                "ours, 10 starts": [],
            }
            for seed in range(10):
                runs["sklearn"].append(timed(run_sklearn, points, num, seed))
                if seed < REPEATS:
                    runs["faiss"].append(timed(run_faiss, points, num, seed))
                    one = KMeans(num, 1, start="greedy_kmeans++", search="exchange")
                    ten = KMeans(num, 10, search="exchange")
                    for label, quantizer in (("ours, 1 start", one), ("ours, 10 starts", ten)):
                        runs[label].append(timed(ours, quantizer, tensor, seed))
            found = {
                key: [(s, distortion(points, c)) for s, c in values] for key, values in runs.items()
            }
            reference = sum(s for s, _ in found["sklearn"]), min(d for _, d in found["sklearn"])
            for key, values in found.items():
                seconds = statistics.median(s for s, _ in values)
                best = statistics.median(d for _, d in values)
                yield row(
                    "kmeans",
                    name,
                    num,
                    f"{key}, 1 start" if key == "sklearn" else key,
                    seconds,
                    best,
                    reference,
                )
            yield row("kmeans", name, num, "sklearn, 10 starts", *reference, reference)


def row(
    section: str, data: str, num: int, method: str, seconds: float, value: float, reference: tuple
) -> dict:
    """Return a line of the table; ``reference`` is what to compare with, seconds and distortion."""
    return {
        "section": section,
        "data": data,
        "num_centroids": num,
        "method": method,
        "milliseconds": 1000 * seconds,
        "relative_distortion": value,
        "times_faster": reference[0] / seconds,
        "change_percent": 100 * (value / reference[1] - 1),
    }


def bench_large() -> Iterator[dict]:
    """Ours by default against one start of scikit-learn, which is its own default."""
    for name, points in large_sets():
        tensor, repeats = torch.from_numpy(points), REPEATS if len(points) < 10000 else 3
        for num in (10, 50, 200) if len(points) < 10000 else (10, 100):
            runs: dict[str, list] = {"sklearn, 1 start": [], "faiss": [], "ours": []}
            for seed in range(repeats):
                runs["sklearn, 1 start"].append(timed(run_sklearn, points, num, seed))
                runs["faiss"].append(timed(run_faiss, points, num, seed))
                runs["ours"].append(timed(ours, KMeans(num), tensor, seed))
            found = {
                key: (
                    statistics.median(s for s, _ in values),
                    statistics.median(distortion(points, c) for _, c in values),
                )
                for key, values in runs.items()
            }
            for key, (seconds, value) in found.items():
                yield row("large", name, num, key, seconds, value, found["sklearn, 1 start"])


def bench_sweep() -> Iterator[dict]:
    """All four K of a class on one cloud against its most expensive K alone."""
    for name, points in small_sets():
        tensor, whole, single = torch.from_numpy(points), [], []
        for seed in range(REPEATS):
            single.append(timed(ours, KMeans(max(KS)), tensor, seed)[0])
            start = time.process_time()
            cloud = PointCloud(tensor)
            for num in KS:
                ours(KMeans(num), cloud, seed)
            whole.append(time.process_time() - start)
        reference = statistics.median(single), 1.0
        yield row("sweep", name, max(KS), "alone", reference[0], 1.0, reference)
        yield row(
            "sweep", name, max(KS), "10, 50, 100, 200", statistics.median(whole), 1.0, reference
        )


def bench_barycenter() -> Iterator[dict]:
    """The balanced barycentre against POT's, in float32 and in float64;
    W2² with equal masses over the variance.
    """
    for name, points in small_sets():
        tensor, mass = torch.from_numpy(points), np.full(len(points), 1 / len(points))
        variance = PointCloud(tensor).variance
        for num in KS:
            runs: dict[str, list] = {"POT, float32": [], "POT, float64": [], "ours": []}
            for seed in range(REPEATS if points.shape[1] < 10000 else 3):
                start = points[np.random.default_rng(seed).choice(len(points), num, replace=False)]
                for kind in (np.float32, np.float64):
                    timing = timed(run_pot, points.astype(kind), mass, start.astype(kind))
                    runs[f"POT, {np.dtype(kind)}"].append(timing)
                runs["ours"].append(timed(ours, Barycenter(num), tensor, seed))
            found = {}
            for key, values in runs.items():
                atoms = [
                    torch.from_numpy(np.asarray(centroids, np.float32)) for _, centroids in values
                ]
                costs = [w2_squared(tensor, points_of, torch.ones(num)) for points_of in atoms]
                found[key] = (
                    statistics.median(s for s, _ in values),
                    statistics.median(costs) / variance,
                )
            for key, (seconds, value) in found.items():
                yield row("barycenter", name, num, key, seconds, value, found["POT, float32"])


def bench_held_out() -> Iterator[dict]:
    """Lloyd against exchanges on latents that the centroids were not fitted to:
    five folds, mean of 3 seeds.
    """
    sets = [("synthetic 1300 × 4096", latents.synthetic(1300, 32, 0))]
    if latents.SHARED.is_dir():
        sets += [(f"ImageNette class {c}, tiny VAE", latents.imagenette(c)) for c in (0, 1)]
        sets += [
            ("Fashion-MNIST shirts", latents.fashion_mnist(6)),
            ("CIFAR-10 cats", latents.cifar10(3)[:, ::4]),
        ]
    for name, points in sets:
        for num in (5, 10, 20, 50, 100, 200):
            found = {}
            for search in ("lloyd", "exchange"):
                cloud = PointCloud(torch.from_numpy(points))
                quantizer = KMeans(num, 5, search=search)
                folds = [
                    quantizer.fit(cloud, generator(seed), num_folds=5).held_out_distortion
                    for seed in range(3)
                ]
                found[search] = 1.0, statistics.mean(folds) / cloud.variance
            for search, (seconds, value) in found.items():
                label = f"{search}, {len(points) // num} per centroid"
                yield row("held_out", name, num, label, seconds, value, found["lloyd"])


def bench_masses() -> Iterator[dict]:
    """What masses take off W2² against equal weights, for D4M's points and for k-means;
    and what float16 changes.
    """
    sets = [("synthetic 1300 × 4096", latents.synthetic(1300, 32, 0))]
    if latents.SHARED.is_dir():
        sets += [
            ("ImageNette tench, tiny VAE", latents.imagenette(0)),
            ("Fashion-MNIST shirts", latents.fashion_mnist(6)),
        ]
    for name, points in sets:
        tensor = torch.from_numpy(points)
        for num in (10, 50):
            for label, quantizer in (("D4M", D4M(num)), ("k-means", KMeans(num))):
                found = []
                for seed in range(REPEATS):
                    codebook = quantizer.fit(tensor, generator(seed))
                    equal = w2_squared(tensor, codebook.centroids, torch.ones(num))
                    found.append(
                        (equal / codebook.variance, codebook.distortion / codebook.variance)
                    )
                equal, masses = (statistics.mean(values) for values in zip(*found, strict=True))
                yield row("masses", name, num, f"{label}, equal", 1.0, equal, (1.0, equal))
                yield row("masses", name, num, f"{label}, masses", 1.0, masses, (1.0, equal))
            half = distortion(
                points, KMeans(num).fit(tensor.half(), generator(0)).centroids.numpy()
            )
            full = distortion(points, KMeans(num).fit(tensor, generator(0)).centroids.numpy())
            yield row("masses", name, num, "k-means, fitted to float16", 1.0, half, (1.0, full))


def bench_imagenet(num_classes: int = 40) -> Iterator[dict]:
    """A slice of ImageNet-1K's shape from float16 on disk, all four K, on two threads:
    wall seconds and memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "latents.npy"
        stored = np.lib.format.open_memmap(path, "w+", np.float16, (num_classes, 1300, 4096))
        for label in range(num_classes):
            stored[label] = latents.synthetic(1300, 32, label % 8)
        stored.flush()

        def quantize(label: int) -> None:
            cloud = PointCloud(torch.from_numpy(np.array(np.load(path, mmap_mode="r")[label])))
            for num in KS:
                KMeans(num).fit(cloud, generator(label))

        quantize(0)
        start = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(quantize, range(num_classes)))
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    one = row(
        "imagenet",
        f"{num_classes} classes × 1300 × 4096, float16",
        max(KS),
        "all four K, 2 threads",
        seconds,
        1,
        (1, 1),
    )
    yield one | {"peak_gib": peak, "seconds_for_1000_classes": 1000 * seconds / num_classes}


SECTIONS = {
    "kmeans": bench_kmeans,
    "large": bench_large,
    "sweep": bench_sweep,
    "barycenter": bench_barycenter,
    "held_out": bench_held_out,
    "masses": bench_masses,
    "imagenet": bench_imagenet,
}


def main(names: list[str]) -> None:
    """Run some sections, or all, and print and write their rows; sections not run keep theirs."""
    torch.set_num_threads(1)
    threadpool_limits(1)
    faiss.omp_set_num_threads(1)
    warm = torch.randn(3000, 4)  # compiles what is compiled on first use
    for quantizer in (KMeans(3, search="exchange"), KMeans(3, search="lloyd"), Barycenter(3)):
        quantizer.fit(warm, generator(0)), quantizer.fit(warm[:100], generator(0))
    console = Console()
    for name in names or SECTIONS:
        table = Table(
            "data", "K", "method", "ms", "value", "times faster", "change %", title=name, box=None
        )
        rows = list(SECTIONS[name]())
        for one in rows:
            cells = f"{one['milliseconds']:.0f}", f"{one['relative_distortion']:.4f}"
            ratios = f"{one['times_faster']:.1f}", f"{one['change_percent']:+.2f}"
            table.add_row(one["data"], str(one["num_centroids"]), one["method"], *cells, *ratios)
        console.print(table)
        others = json.loads(OUTPUT.read_text())["rows"] if OUTPUT.exists() else []
        kept = [old for old in others if old["section"] != name]
        OUTPUT.parent.mkdir(parents=True, exist_ok=True)
        OUTPUT.write_text(json.dumps({"machine": provenance(), "rows": kept + rows}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
