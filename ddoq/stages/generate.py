"""generate: points to images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ddoq.data.base import SPLITS
from ddoq.pipeline.graph import Node
from ddoq.stages.encode import load_encoder
from ddoq.stages.quantize import CODEBOOK
from ddoq.stages.runtime import Runtime, build, facts
from ddoq.utils.console import console

VERSION = 1
_NO_WORD = re.compile(r"[\W\d_]*|\w|n\d{8}")


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write one PNG per point, in class folders; facts: number of images."""
    import torch

    from ddoq.data.distilled import file_names, write_png
    from ddoq.data.images import from_unit
    from ddoq.engine.memory import FittingBatches
    from ddoq.engine.trainer import predict_batches
    from ddoq.generators.base import Points
    from ddoq.quantizers.codebook import ClassCodebooks
    from ddoq.utils.seeding import item_seed

    points = ClassCodebooks.load(inputs["quantize"] / CODEBOOK)
    class_names = facts(inputs["index"])["class_names"]
    names = file_names(points.labels, points.index, class_names)
    generator, fitting = _generator(node, inputs, runtime), FittingBatches("generate")
    seeds = [
        item_seed(node.identity.get("seed"), "noise", label, index)
        for label, index in zip(points.labels.tolist(), points.index.tolist(), strict=True)
    ]

    def generate(batch) -> torch.Tensor:
        numbers, latents, labels, sources = batch
        some = Points(latents, labels, sources, [seeds[i] for i in numbers.tolist()])
        return fitting(len(some), lambda rows: generator.generate(some.part(rows)))

    def write(batch, images: torch.Tensor) -> None:
        for number, image in zip(batch[0].tolist(), from_unit(images.cpu()), strict=True):
            write_png(folder / names[number], image)

    # A batch is repeated whole if one of its images is missing: in another batch, the last bit may round otherwise.
    batches = [
        batch
        for batch in runtime.ranks.mine(runtime.batches(list(range(len(points)))))
        if not all((folder / names[i]).exists() for i in batch)
    ]
    items = torch.utils.data.TensorDataset(torch.arange(len(points)), points.latents, points.labels, points.sources)
    predict_batches(
        generate,
        runtime.prepare(generator.networks()),
        items,
        batches,
        write,
        title=f"generate {node.title}",
        accelerator=runtime.accelerator,
    )
    runtime.ranks.gather()
    return {"num_images": len(points)}


def try_generators(nodes: Iterable[Node], index: Mapping, runtime: Runtime) -> None:
    """Load every pretrained generator that nodes need, each once: a bad one is known before anything is encoded.

    Args:
        nodes: that have to be computed.
        index: facts of the ``index`` artefact.
        runtime: finds pretrained weights.

    Raises:
        DdoqError: a model does not load, or does not fit the data.
    """
    tried = set()
    for node in nodes:
        model = node.identity.get("model")
        if node.stage == "generate" and model is not None and model not in tried:
            tried.add(model)
            _warn_of_prompts(node.identity["generator"], index)
            _pretrained(node, runtime.models.place(model, node.identity["generator"]), None, index)


def _warn_of_prompts(generator: Mapping, index: Mapping) -> None:
    """Say so where prompts consist of names that are no words: numbers, single letters, unknown WordNet ids."""
    names = [name for name in index["class_names"] if _NO_WORD.fullmatch(name)]
    if names and "{" in generator.get("prompt", ""):
        console.print(
            f"[yellow]generator.prompt: {len(names)} of {len(index['class_names'])} class names say nothing to a text "
            f"encoder, e.g. '{names[0]}': give the classes' folders words for names, or take generator=dit[/]",
            soft_wrap=True,
        )


def _pretrained(node: Node, path: str, encoder, index: Mapping):
    from ddoq.data.label_space import LabelSpace

    return build(node.identity["generator"], path=path, encoder=encoder, label_space=LabelSpace.from_facts(index))


def _generator(node: Node, inputs: Mapping[str, Path], runtime: Runtime):
    """Return the generator."""
    conf = node.identity["generator"]
    if conf["name"] == "real":
        return build(conf, images=runtime.images(inputs["index"], SPLITS[0]))
    encoder = load_encoder(node.identity, inputs, runtime)
    if conf["name"] == "decode":
        return build(conf, encoder=encoder)
    path = str(inputs["model"]) if "model" in inputs else runtime.models.place(node.identity["model"], conf)
    return _pretrained(node, path, encoder, facts(inputs["index"]))
