"""The networks that nodes name: fitted by an earlier stage, or pretrained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_model
from torch import nn

from ddoq.config.build import build
from ddoq.data.label_space import LabelSpace
from ddoq.encoders import Encoder
from ddoq.experiment.models import Models
from ddoq.experiment.teachers import members_of
from ddoq.generators import LatentDiffusion
from ddoq.labelers import Ensemble, Teacher, TeacherFeatures, TeacherLogits
from ddoq.pipeline.graph import Node
from ddoq.stages.files import TEACHER
from ddoq.stages.runtime import Runtime, facts, index_facts
from ddoq.stages.students import new_student
from ddoq.utils.console import console
from ddoq.utils.weights import loading


def load_encoder(identity: Mapping, inputs: Mapping[str, Path], runtime: Runtime) -> Encoder:
    """Return the encoder that a node's identity names,
    from its input folder or from pretrained weights.
    """
    weights = identity.get("weights")
    path = (
        str(inputs["encoder"])
        if "encoder" in inputs
        else weights and runtime.models.place(weights, identity["encoder"])
    )
    return build(identity["encoder"], **({"path": path} if path else {})).eval()


def load_encoder_of(
    encode: Node, inputs: Mapping[str, Path], runtime: Runtime
) -> Encoder | TeacherFeatures | TeacherLogits:
    """Return what an ``encode`` node encodes with.

    Args:
        encode: the node.
        inputs: folders of its inputs, or of another node's that has these among its own.
        runtime: finds pretrained weights.
    """
    if "teacher" not in encode.inputs:
        return load_encoder(encode.identity, inputs, runtime)
    teacher = load_teacher(encode.inputs["teacher"], inputs, runtime)
    is_features = encode.identity["encoder"]["name"] == "teacher"
    return TeacherFeatures(teacher) if is_features else TeacherLogits(teacher)


def load_pretrained_generator(
    conf: Mapping, path: str, encoder: Encoder | None, space: LabelSpace, **steering: Any
) -> LatentDiffusion:
    """Return a generator with weights in ``path``, for the classes of a data set;
    ``steering``: its guidances, and the cells of each class.
    """
    return build(conf, path=path, encoder=encoder, label_space=space, **steering)


def load_teacher(examined: Node, inputs: Mapping[str, Path], runtime: Runtime) -> nn.Module:
    """Return the teacher that a ``check_teacher`` node has examined, or is to examine.

    Args:
        examined: the node.
        inputs: folders of the inputs, among them ``index`` and those of the fitted networks.
        runtime: finds pretrained weights.
    """
    conf = examined.identity["teacher"]
    members = {
        name: _load(member, f"fitted.{name}", examined, inputs, runtime)
        for name, member in members_of(conf)
    }
    return Ensemble(members) if "members" in conf else members[""]


def _load(
    conf: Mapping, fitted: str, examined: Node, inputs: Mapping[str, Path], runtime: Runtime
) -> nn.Module:
    if fitted in inputs:
        return load_fitted(examined.inputs[fitted], inputs[fitted], inputs["index"])
    index = index_facts(inputs["index"])
    path = runtime.models.place(conf["weights"], conf)
    options = {"path": path, "num_classes": index.num_classes, "label_space": index.space}
    return build({key: value for key, value in conf.items() if key != "weights"}, **options)


def load_fitted(node: Node, folder: Path, index: Path) -> Teacher:
    """Return the network of a finished node as a teacher."""
    identity, size = node.identity, facts(folder)["image_size"]
    protocol = identity["protocol"]
    network, normalize = new_student(
        identity["student"], index_facts(index), protocol["normalization"], size, identity["seed"]
    )
    with loading(f"the teacher in {folder}", "teacher"):
        load_model(network, str(folder / TEACHER))
    return Teacher(
        network, normalize.mean.flatten().tolist(), normalize.std.flatten().tolist(), size
    )


_NO_WORD = re.compile(r"[\W\d_]*|\w|n\d{8}")


def try_generators(nodes: Iterable[Node], space: LabelSpace, models: Models) -> None:
    """Load every generator that nodes need, each once:
    a bad one is known before anything is encoded.

    Args:
        nodes: of the stage ``generate``, with pretrained generators.
        space: the classes of the data set.
        models: finds pretrained weights.

    Raises:
        DdoqError: a model does not load, or does not fit the data.
    """
    tried = set()
    for node in nodes:
        model = node.identity["model"]
        if model not in tried:
            tried.add(model)
            conf = node.identity["generator"]
            _warn_of_prompts(conf, space.names)
            load_pretrained_generator(conf, models.place(model, conf), None, space)


def _warn_of_prompts(generator: Mapping, class_names: Sequence[str]) -> None:
    """Say so where prompts consist of names that are no words:
    numbers, single letters, unknown WordNet ids.
    """
    names = [name for name in class_names if _NO_WORD.fullmatch(name)]
    if names and "{" in generator.get("prompt", ""):
        console.print(
            f"[yellow]generator.prompt: {len(names)} of {len(class_names)} class names say nothing "
            f"to a text encoder, e.g. '{names[0]}': give the classes' folders words for names, "
            "or take generator=dit[/]",
            soft_wrap=True,
        )
