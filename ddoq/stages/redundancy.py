"""redundancy: what an arm's next draw would still tell a student of its first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ddoq.data.floats import as_floats, to_bytes
from ddoq.pipeline.graph import Node
from ddoq.stages.evaluate import label_options
from ddoq.stages.runtime import Runtime
from ddoq.stages.students import distilled_set, train_and_test, training_data


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write nothing but facts: ``top1`` on the images of the next draw, each counted once, of a
    student that was trained on those of the first; and how many of them there are.

    The diagnostic of LGD (CVPR 2026), which trains on one increment of images and tests on the next
    one. Its increments know of those before; here draws are independent.
    """
    data, recipe = training_data(node.identity, inputs, runtime)
    following = distilled_set(inputs["next"], inputs["index"]).training_set(data.images.shape[-1])
    test = to_bytes(as_floats(following.images)), following.labels
    options = label_options(node, inputs, data, recipe, runtime)
    _, measures = train_and_test(
        node.identity, inputs["index"], data, recipe, test, runtime, **options
    )
    return {"top1": measures["top1"], "num_images": len(following.labels)}
