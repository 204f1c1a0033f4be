"""fit_surrogates: networks at several points of a short training on real images, for guidances."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ddoq.engine.surrogates import SurrogateModule, epoch_of, kept_surrogates
from ddoq.engine.trainer import even_ends, fit_steps
from ddoq.errors import StageError
from ddoq.pipeline.graph import Node
from ddoq.stages.runtime import Runtime, index_facts
from ddoq.stages.students import new_student
from ddoq.utils.seeding import item_generator, item_seed
from ddoq.utils.state_dicts import require_finite

_COMPARED = 10  # classes whose gradients say whether a network has turned
_IMAGES = 50  # of each


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write ``epoch-*.safetensors``, a network each; facts: after which epochs, side of images."""
    fit = node.identity["fit"]
    images, labels = runtime.tensors(inputs["index"], "train")
    network = new_surrogate(node, inputs["index"], images.shape[-1])

    def make_batch(step: int) -> tuple[Tensor, Tensor]:
        random = item_generator(fit["seed"], "surrogates", step)
        chosen = torch.randint(len(images), (fit["batch_size"],), generator=random)
        return images[chosen], labels[chosen]

    checkpoint = folder / "last.ckpt"
    module = SurrogateModule(
        network,
        fit["learning_rate"],
        similarity=fit["similarity"],
        most=fit["most"],
        real=_compared(images, labels),
        folder=folder,
    )
    fit_steps(
        module,
        make_batch,
        even_ends(fit["epochs"] * max(1, len(images) // fit["batch_size"]), fit["epochs"]),
        title="fit surrogates",
        accelerator=runtime.accelerator,
        checkpoint=checkpoint,
    )
    remedy = "lower fit.learning_rate of the guidance that they are for"
    require_finite(network, "the surrogate", node.stage, remedy, StageError)
    checkpoint.unlink(missing_ok=True)
    return {
        "epochs": [epoch_of(path) for path in kept_surrogates(folder)],
        "image_size": images.shape[-1],
    }


def new_surrogate(node: Node, index: Path, image_size: int) -> nn.Module:
    """Return the untrained network of a node, from images in [0, 1] to logits."""
    identity = node.identity
    seed = item_seed(identity["fit"]["seed"], "surrogate")
    network, normalize = new_student(
        identity["student"], index_facts(index), identity["normalization"], image_size, seed
    )
    return nn.Sequential(normalize, network)


def _compared(images: Tensor, labels: Tensor) -> dict[int, Tensor]:
    """Return some images of some classes, evenly chosen, by label."""
    classes = labels.unique().tolist()
    places = np.unique(np.linspace(0, len(classes) - 1, min(_COMPARED, len(classes))).astype(int))
    chosen = [classes[place] for place in places]
    return {label: images[(labels == label).nonzero().flatten()[:_IMAGES]] for label in chosen}
