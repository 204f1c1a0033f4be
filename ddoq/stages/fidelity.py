"""fidelity: how an arm's images look to a teacher or another network, beside real ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ddoq.data.distilled import load_distilled
from ddoq.data.floats import as_floats
from ddoq.data.indexed import labels_of
from ddoq.data.latents import StoredLatents
from ddoq.engine.trainer import predict_batches
from ddoq.evaluation.fidelity import fidelity, label_entropy, rank_correlation
from ddoq.pipeline.graph import Node
from ddoq.stages.files import PER_IMAGE
from ddoq.stages.models import load_encoder_of, load_teacher
from ddoq.stages.runtime import Runtime, index_facts
from ddoq.utils.handover import Batches, Handover
from ddoq.utils.io import atomic_path

_NEIGHBOURS, _NUM_REAL = 5, 10_000


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write ``images.parquet``; facts: the measures of ``ddoq.evaluation.fidelity`` with the
    points' weights, the teacher's accuracy on the images, their labels' mean entropy and its rank
    correlation with the weights.
    """
    distilled = load_distilled(inputs["label"])
    labels = distilled.labels.repeat_interleave(distilled.num_parts)
    weights = distilled.weights.repeat_interleave(distilled.num_parts)
    stored = StoredLatents(inputs["features"], labels_of(inputs["index"], "train"))
    chosen = np.unique(np.linspace(0, len(stored) - 1, _NUM_REAL).astype(int))
    teacher, collected = load_teacher(node.inputs["teacher"], inputs, runtime), []
    is_own = "teacher" in node.inputs["features"].inputs
    other = None if is_own else load_encoder_of(node.inputs["features"], inputs, runtime)

    def look(batch) -> torch.Tensor:
        images = as_floats(batch[1])
        features = teacher.features(images) if is_own else other.encode(2 * images - 1)
        return torch.cat([teacher(images), features.flatten(1)], 1)

    num_classes = index_facts(inputs["index"]).num_classes
    outputs = Handover(
        "fidelity", "outputs of the teacher", "take another teacher, or set measure.fidelity=false"
    )
    predict_batches(
        look,
        torch.nn.ModuleList([teacher, other or torch.nn.Identity()]),
        distilled.items(runtime.dataset.image_size),
        runtime.batches(list(range(len(labels)))),
        Batches(outputs, (num_classes + math.prod(stored.shape),)),
        lambda batch, outputs: collected.append(outputs.float().cpu()),
        title=f"fidelity {node.title}",
        accelerator=runtime.accelerator,
    )
    logits, features = torch.cat(collected).split(
        [num_classes, collected[0].shape[1] - num_classes], 1
    )
    entropy, correct = label_entropy(logits), logits.argmax(1) == labels
    columns = {
        "label": labels,
        "weight": weights,
        "entropy": entropy,
        "correct": correct,
    }
    with atomic_path(folder / PER_IMAGE) as temporary:
        pq.write_table(
            pa.table({name: column.numpy() for name, column in columns.items()}), temporary
        )
    measures = fidelity(stored.at(chosen).flatten(1), features, weights, _NEIGHBOURS)
    return measures | {
        "num_real": len(chosen),
        "teacher_top1": correct.double().mean().item(),
        "entropy": entropy.mean().item(),
        "entropy_weight_correlation": rank_correlation(entropy, weights),
    }
