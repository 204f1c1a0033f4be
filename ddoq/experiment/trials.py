"""The nodes of trials: models from elsewhere are tried on a few real images
before they are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddoq.experiment.entries import Entry
from ddoq.experiment.models import generator_identity
from ddoq.experiment.nodes import Nodes, make_node
from ddoq.pipeline.graph import Node

Conf = Mapping[str, Any]

#: What a generator's network does not depend on: arms that differ in it share a probe.
_OF_SAMPLING = (
    "strength",
    "guidance_scale",
    "num_steps",
    "start",
    "inversion_scale",
    "num_sets",
    "mode_guidance",
    "mode_stop",
    "guidance_channels",
)


def probes(nodes: Nodes, entries: Sequence[Entry]) -> list[Node]:
    """Return the probes of the encoder, if that is a network, and of pretrained generators.

    A DiT that ddoq fits there is only after the latents: ``generate`` tries it.
    """
    encoder, inputs = nodes.encoder_identity, {"index": nodes.index, "encoder": nodes.encoder}
    probed: dict[str, Node] = {}
    is_network = nodes.config["encoder"]["_target_"] != "ddoq.encoders.Pixels"
    if is_network and any(entry.quantize for entry in entries):
        probed["encoder"] = make_node("probe", encoder, encoder["encoder"]["name"], **inputs)
    for entry in entries:
        identity = entry.generate.identity if entry.generate else {}
        if identity.get("model"):
            generator = identity["generator"]
            conf = {key: value for key, value in generator.items() if key not in _OF_SAMPLING}
            tried = {**encoder, "generator": conf, "model": identity["model"]}
            node = make_node("probe", tried, conf["name"], **inputs)
            probed.setdefault(node.key, node)
    return list(probed.values())


def trials(nodes: Nodes, arms: Mapping[str, Conf]) -> list[Node]:
    """Return the trials of generators from elsewhere
    that are said to know the data set's labels.
    """
    inputs = {"index": nodes.index, "encode": nodes.encode}
    tried: dict[str, Node] = {}
    for arm in arms.values():
        conf = arm.get("generator", {})
        if conf.get("classes") == "dataset" and conf["path"]:
            identity = generator_identity(conf, nodes.models, of_trial=True)
            node = make_node("check_generator", identity, conf["name"], **inputs)
            tried[node.key] = node
    return list(tried.values())
