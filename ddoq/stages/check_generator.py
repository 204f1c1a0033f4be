"""check_generator: whether a generator trained elsewhere knows the data set's
classes by their labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binomtest

from ddoq.config.build import build
from ddoq.data.chosen import further
from ddoq.data.class_order import by_number, reordered, write_order
from ddoq.data.latents import StoredLatents
from ddoq.errors import StageError, override
from ddoq.generators.classify import denoising_errors
from ddoq.labelers.orders import FALSE_ALARM, compare_orders, doubtful_classes
from ddoq.pipeline.graph import Node
from ddoq.stages.runtime import Runtime, index_facts
from ddoq.utils.console import console
from ddoq.utils.handover import Handover
from ddoq.utils.seeding import item_seed

_MOST_CALLS = 1000  # of the network in one look: about what ten images cost
_FEW_CLASSES = 16
_PER_CLASS, _FURTHER = 10, 40
_BY_CHANCE = 0.05


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write nothing but facts: as what the generator knows real images,
    and what that says about its order.

    With up to 16 classes all other orders are compared; with more, that of the numbers,
    where names are numbers. A generator that tells no classes apart, or not in these few
    images, is not refused.

    Raises:
        StageError: its classes fit the images significantly better in another order, which is then
            written to the folder ``orders`` beside the store.
    """
    names, trial = index_facts(inputs["index"]).class_names, _Trial(node, inputs, runtime)
    if len(names) <= _FEW_CLASSES:
        outputs, p_value, answers, labels = trial.of_all_orders(len(names))
    elif by_number(names) != list(range(len(names))):
        outputs, p_value, answers, labels = trial.of_another(by_number(names))
    else:
        return {
            "p_value": None,
            "why": f"{len(names)} classes, and no other order is likelier than the rest",
        }
    moved = [label for label, output in enumerate(outputs) if label != output]
    if moved:
        path = folder.parents[2].resolve() / "orders" / f"{node.key}-generator.json"
        own = list(range(len(names)))
        write_order(
            path,
            reordered(
                node.identity["generator"].get("order") or names, trial.numbers(own), outputs
            ),
        )
        raise StageError(
            f"generator: {node.title} knows the classes in another order: "
            f"{len(moved)} of {len(names)} look permuted "
            f"(its class '{names[outputs[moved[0]]]}' fits images of class '{names[moved[0]]}'; "
            f"p = {p_value:.1g})",
            f"set {override('generator.order', path)}, "
            "which names each of its classes, or correct the data",
        )
    num, right = len(labels), int((answers == labels).sum())
    chance = 1 / min(len(names), _FEW_CLASSES) if len(names) <= _FEW_CLASSES else 0.5
    tells = bool(binomtest(right, num, chance, alternative="greater").pvalue <= _BY_CHANCE)
    if not tells:
        console.print(
            f"[yellow]generator: {node.title} knows {right} of {num} real images by their class, "
            "which may be chance: that it means the data set's classes "
            "(generator.classes=dataset) could not be seen[/]",
            soft_wrap=True,
        )
    return {"p_value": p_value, "num_images": num, "top1": right / num, "tells_classes": tells}


class _Trial:
    """A generator that classifies latents of the train split."""

    def __init__(self, node: Node, inputs: Mapping[str, Path], runtime: Runtime):
        conf, self.runtime = node.identity["generator"], runtime
        path = runtime.models.place(node.identity["model"], conf)
        space = index_facts(inputs["index"]).space
        self.latents = StoredLatents(inputs["encode"])
        self.generator = build(conf, path=path, encoder=None, label_space=space)
        self.generator.network.to(runtime.device)

    def numbers(self, labels: Sequence[int]) -> list[int]:
        """Return the generator's own numbers of some labels."""
        return self.generator.conditions(torch.tensor(labels)).tolist()

    def of_all_orders(
        self, num_classes: int
    ) -> tuple[Sequence[int], float, np.ndarray, np.ndarray]:
        """Return the order that fits, the p value of the given one, and the answers that say so,
        with their labels.
        """

        def look(seen: np.ndarray, classes: Sequence[int], most: int) -> np.ndarray:
            share = max(4, min(most, _MOST_CALLS // (len(classes) * num_classes)))
            return further(
                self.latents.labels, len(self.latents), seen, dict.fromkeys(classes, share)
            )

        chosen = look(np.empty(0, int), range(num_classes), _PER_CLASS)
        answers = self._answers(chosen, np.tile(np.arange(num_classes), (len(chosen), 1)))
        every = num_classes
        if doubtful := doubtful_classes(answers, self.latents.labels[chosen], every):
            new = look(chosen, doubtful, _FURTHER)
            answers = np.append(
                answers, self._answers(new, np.tile(np.arange(num_classes), (len(new), 1)))
            )
            chosen = np.append(chosen, new)
        labels = self.latents.labels[chosen]
        trial = compare_orders(answers, labels, num_classes)
        return trial.outputs, trial.p_value, answers, labels

    def of_another(
        self, order: Sequence[int]
    ) -> tuple[Sequence[int], float, np.ndarray, np.ndarray]:
        """Return the same, where there is but one other order;
        images are of classes that it moves.
        """
        moved = [label for label, output in enumerate(order) if label != output]
        chosen = further(
            self.latents.labels, len(self.latents), np.empty(0, int), dict.fromkeys(moved, 1)
        )
        chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), 100)).astype(int)]
        labels = self.latents.labels[chosen]
        answers = self._answers(chosen, np.stack([labels, np.array(order)[labels]], 1))
        p_value = float(
            binomtest(int((answers != labels).sum()), len(labels), alternative="greater").pvalue
        )
        return order if p_value <= FALSE_ALARM else range(len(order)), p_value, answers, labels

    def _answers(self, positions: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Return which of its candidates the generator takes each latent for."""
        latents = torch.cat(
            [self.latents.at(np.array([position])) for position in positions.tolist()]
        )
        seeds = [item_seed("check_generator", position) for position in positions.tolist()]
        labels = torch.from_numpy(candidates.astype(np.int64))
        errors = denoising_errors(self.generator, latents, labels, seeds, self.runtime.batch_size)
        Handover(
            "generator", "errors of real latents", "replace the weights in generator.path"
        ).finite(errors)
        return candidates[np.arange(len(candidates)), errors.argmin(1).numpy()]
