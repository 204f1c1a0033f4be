"""quantize: the latents of each class to K points with masses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ddoq.errors import DataError
from ddoq.pipeline.graph import Node
from ddoq.stages.runtime import Runtime, build
from ddoq.utils.console import progress_bar
from ddoq.utils.io import read_json, write_json

VERSION = 1
CODEBOOK = "codebook.safetensors"
MEASURES = ("distortion", "variance", "w2_squared_uniform", "effective_size")


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write ``codebook.safetensors``; facts: distortion (= W2² with masses), W2² without, per class and overall."""
    from ddoq.data.latents import Latents
    from ddoq.quantizers.codebook import ClassCodebooks

    latents = Latents(inputs["encode"])
    num_classes = int(latents.labels.max()) + 1
    with progress_bar(f"quantize {node.title}", num_classes) as bar:
        for label in range(num_classes):
            if not (folder / f"class-{label:05d}.json").exists():
                _quantize_class(node, latents, label, folder)
            bar.advance()
    parts = [folder / f"class-{label:05d}" for label in range(num_classes)]
    merged = ClassCodebooks.concatenate([ClassCodebooks.load(part.with_suffix(".safetensors")) for part in parts])
    merged.save(folder / CODEBOOK, dict(node.identity))
    per_class = [read_json(part.with_suffix(".json")) for part in parts]
    for part in parts:
        part.with_suffix(".json").unlink()
        part.with_suffix(".safetensors").unlink()
    sizes = [row.pop("num") for row in per_class]
    overall = {
        name: sum(size * row[name] for size, row in zip(sizes, per_class, strict=True)) / sum(sizes)
        for name in MEASURES
    }
    return {**overall, "num_points": len(merged), "per_class": per_class}


def _quantize_class(node: Node, latents, label: int, folder: Path) -> None:
    import torch

    from ddoq.quantizers.codebook import ClassCodebooks, effective_size, w2_squared
    from ddoq.utils.seeding import item_generator

    num_centroids = node.identity["ipc"]
    positions, of_class = latents.of_class(label)
    if len(of_class) < num_centroids:
        raise DataError(
            f"ipc: {num_centroids} is more than the {len(of_class)} training images of class {label}",
            f"set ipc to at most {len(of_class)}",
        )
    quantizer = build(node.identity["quantizer"], num_centroids=num_centroids)
    codebook = quantizer.fit(of_class, generator=item_generator(node.identity["seed"], "quantize", label))
    uniform = torch.full((num_centroids,), 1 / num_centroids)
    ClassCodebooks.rows(codebook, label, positions).save(folder / f"class-{label:05d}.safetensors", {})
    write_json(
        folder / f"class-{label:05d}.json",
        {
            "num": len(of_class),
            "distortion": codebook.distortion,
            "variance": codebook.variance,
            "w2_squared_uniform": w2_squared(of_class, codebook.centroids, uniform),
            "effective_size": effective_size(codebook.weights),
        },
    )
