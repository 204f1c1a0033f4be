"""curve: how W2 falls with the number of points, for every class:
the rate of the theory, measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ddoq.errors import DdoqError
from ddoq.pipeline.graph import Node
from ddoq.quantizers.cloud import PointCloud
from ddoq.quantizers.measures import rate
from ddoq.stages.classes import ClassQuantizer, each_class, measures, require_codebook
from ddoq.stages.quantize import overall
from ddoq.stages.runtime import Runtime
from ddoq.utils.io import read_json, write_json


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Quantize every class at every K; facts:
    measures per K, the rate of every class and of all together.

    A K that a class cannot have (fewer latents, or a quantizer that refuses it)
    is left out for all.
    """
    classes = ClassQuantizer(node.identity, inputs, runtime)
    labels = list(range(classes.num_classes))
    parts = [folder / f"class-{label:05d}.json" for label in labels]
    each_class(
        [label for label in runtime.ranks.mine(labels) if not parts[label].exists()],
        lambda label: _measure_class(node, classes, label, parts[label]),
        f"curve {node.title}",
        runtime,
    )
    if runtime.ranks.rank:
        return {}
    rows = [row for part in parts for row in read_json(part)]
    points = []
    for num in node.identity["num_centroids"]:
        of_num = [row for row in rows if row["num_centroids"] == num]
        if len(of_num) == len(labels):
            points.append({"num_centroids": num, **overall(of_num)})
    for part in parts:
        part.unlink()

    def rate_of(measured: list[dict]) -> dict[str, float | None]:
        fitted = rate(
            [row["num_centroids"] for row in measured], [row["w2_squared"] for row in measured]
        )
        return {"slope": fitted.slope, "dimension": fitted.dimension}

    per_class = [
        {"label": label, **rate_of([row for row in rows if row["label"] == label])}
        for label in labels
    ]
    return {"points": points, **rate_of(points), "per_class": per_class, "rows": rows}


def _measure_class(node: Node, classes: ClassQuantizer, label: int, part: Path) -> None:
    positions, latents = classes.of_class(label)
    # One Gram matrix and one dendrogram for all K;
    # in another space, the coordinates differ from fold to fold.
    shared = PointCloud(latents) if node.identity["space"]["name"] == "latents" else latents
    rows = []
    for num in node.identity["num_centroids"]:
        if num > len(positions):
            continue
        try:
            codebook = classes.fit(label, num, positions, shared, node.identity["num_folds"])
        except DdoqError:  # D4M, for example, refuses classes smaller than its batch
            continue
        require_codebook(codebook, label, num, len(positions), classes.latents.shape)
        rows.append(
            {
                "label": label,
                "num": len(positions),
                "num_centroids": num,
                **measures(codebook, [latents]),
            }
        )
    write_json(part, rows)
