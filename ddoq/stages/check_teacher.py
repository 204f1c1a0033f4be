"""check_teacher: what a teacher is worth on real images, before anything is trained by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset

from ddoq.data.chosen import further, spread
from ddoq.data.class_order import reordered, write_order
from ddoq.data.indexed import IndexedImages
from ddoq.engine.trainer import predict_batches
from ddoq.errors import override
from ddoq.experiment.teachers import members_of, named_outputs
from ddoq.labelers import examine
from ddoq.labelers.orders import OrderTrial
from ddoq.pipeline.graph import Node
from ddoq.stages.models import load_teacher
from ddoq.stages.runtime import Runtime, index_facts
from ddoq.utils.handover import Batches, Handover

_NUM_IMAGES = 2000
_PER_CLASS = 10
_FURTHER = 50  # images of each class that another order would suit better


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write nothing but facts: accuracy on real images and what they say about the order,
    each member's, too.

    Images are of the validation split, and of the train split where that has too few of a class.

    Raises:
        StageError: the teacher's outputs are not numbers, or it hardly knows the classes, or knows
            them in another order, which is then written to the folder ``orders`` beside the store.
    """
    index, conf = index_facts(inputs["index"]), node.identity["teacher"]
    splits = [split for split in ("validation", "train") if sum(index.counts[split])]
    images = [runtime.images(inputs["index"], split) for split in splits]
    trial = _Trial(
        teacher=load_teacher(node, inputs, runtime),
        images=images,
        class_names=index.class_names,
        runtime=runtime,
        title=node.title,
    )
    verdicts = {}
    for number, (name, member) in enumerate(members_of(conf)):
        columns = trial.members[number].columns.tolist()
        path = folder.parents[2].resolve() / "orders" / f"{node.key}-{name or 'teacher'}.json"
        remedy = partial(
            _remedy, member, named_outputs(member, index.class_names), columns, path, runtime
        )
        title = f"{node.title}, member {name}," if name else node.title
        verdicts[name] = trial.verdict(slice(number, number + 1), title, remedy)
    if "members" not in conf:
        return verdicts[""] | {"split": splits[0]}
    return trial.verdict(slice(None), node.title) | {"split": splits[0], "members": verdicts}


@dataclass(kw_only=True)
class _Trial:
    """A teacher and the images of one or two splits, the preferred one first."""

    teacher: nn.Module
    images: Sequence[IndexedImages]
    class_names: Sequence[str]
    runtime: Runtime
    title: str

    @cached_property
    def members(self) -> list[nn.Module]:
        """The members of an ensemble, or the teacher."""
        return list(getattr(self.teacher, "members", [self.teacher]))

    @cached_property
    def labels(self) -> np.ndarray:
        """Of all images."""
        return np.concatenate([part.labels for part in self.images])

    @cached_property
    def chosen(self) -> np.ndarray:
        """Positions of the images that every teacher is tried on."""
        return spread(self.labels, len(self.images[0]), _NUM_IMAGES, _PER_CLASS)

    @cached_property
    def answers(self) -> tuple[Tensor, Tensor]:
        """What the members say about the chosen images."""
        return self.outputs(self.chosen)

    def outputs(self, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the logits of all members ``[members, n, classes]``
        and the labels ``[n]`` of some images.
        """
        remedy = "replace the weights in teacher.path, or take another teacher"
        promised = Batches(Handover(f"teacher: {self.title}", "outputs", remedy))
        logits: list[Tensor] = []
        predict_batches(
            lambda batch: torch.stack(
                [member(batch[1].float() / 255) for member in self.members], 1
            ),
            self.teacher,
            ConcatDataset(self.images),
            self.runtime.batches(positions.tolist()),
            promised,
            lambda batch, outputs: logits.append(outputs.float().cpu()),
            title="check teacher",
            accelerator=self.runtime.accelerator,
        )
        nothing = torch.empty(0, len(self.members), len(self.class_names))
        return torch.cat(logits or [nothing]).transpose(0, 1), torch.from_numpy(
            self.labels[positions]
        )

    def verdict(self, members: slice, title: str, remedy: Any = None) -> dict:
        """Return the facts about the mean of some members; see ``examine``."""

        def more(classes: Sequence[int]) -> tuple[Tensor, Tensor]:
            share = min(_FURTHER, max(_PER_CLASS, len(self.chosen) // len(classes)))
            wanted = dict.fromkeys(classes, share)
            logits, labels = self.outputs(
                further(self.labels, len(self.images[0]), self.chosen, wanted)
            )
            return logits[members].mean(0), labels

        logits, labels = self.answers
        return examine(logits[members].mean(0), labels, title, self.class_names, more, remedy)


def _remedy(
    conf: Mapping[str, Any],
    names: Sequence[str],
    columns: Sequence[int],
    path: Path,
    runtime: Runtime,
    trial: OrderTrial,
) -> str:
    """Write the order in which a teacher's outputs fit the images; return what to do with it.

    Args:
        conf: of the teacher's identity.
        names: the class of every output, as it was believed.
        columns: the output of every label.
        path: of the file.
        runtime: knows where in the configuration the teacher stands.
        trial: what the images said.
    """
    if conf["weights"] is None:
        return "ddoq fitted it on the train split: correct the labels of these classes in the data"
    write_order(path, reordered(names, columns, trial.outputs))
    key = runtime.models.key(conf["weights"], conf).removesuffix(".path")
    return (
        f"set {override(f'{key}.order', path)}, "
        "which names the class of every output, or correct the data"
    )
