"""Everything that is checked before it can cost anything, in the order in which it can be known.

1. ``check_config``: the configuration alone, before any file is opened.
2. ``check_plan``: the pretrained models of a run, from what they say of themselves.
3. ``check_missing``: what has to be computed, once it is known:
  its models, its protocol, the device.
4. ``check_data``: the data, once they have been indexed.
5. ``try_missing``: pretrained generators that will be needed, by loading them.

What can only be seen on real images has stages of its own:
``audit``, ``probe``, ``check_teacher`` and ``check_generator``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddoq.config.checks import check, check_counts, check_paths
from ddoq.config.complete import completed
from ddoq.config.secrets import check_secrets, leaves
from ddoq.data.base import ImageDataset
from ddoq.data.label_space import LabelSpace
from ddoq.data.leaks import refuse_leaks
from ddoq.experiment.compatible import check_classes, check_fit
from ddoq.experiment.experiment import Experiment
from ddoq.experiment.models import Models
from ddoq.experiment.teachers import check_orders
from ddoq.pipeline.graph import Node
from ddoq.pipeline.store import Store
from ddoq.utils.device import check_accelerator
from ddoq.utils.paths import expand_paths

Conf = Mapping[str, Any]


def check_config(config: Conf) -> dict[str, Any]:
    """Return a resolved configuration without Hydra's part, with all options of its components, its
    paths written out.

    Raises:
        ConfigError: it holds a secret, or a key or value that cannot be.
    """
    check_secrets(leaves(config))
    config = completed({name: part for name, part in config.items() if name != "hydra"})
    check(config)
    config = expand_paths(config)
    check_paths(config)
    return config


def check_plan(experiment: Experiment, models: Models) -> None:
    """Raise DdoqError where models that are here do not fit,
    or an arm is compared that there is not.
    """
    check_fit(experiment.config, models)
    experiment.check()


def check_missing(config: Conf, models: Models, missing: list[Node]) -> None:
    """Raise DdoqError where what has to be computed lacks a model or a device,
    or fits no protocol.
    """
    models.require(missing)
    if not missing:
        return
    check_fit(config, models)  # again: some may have come from the hub just now
    # Imports torch, too, which a run that only reports does not need.
    from ddoq.evaluation.protocol import Protocol

    Protocol.from_config(config["protocol"])
    check_accelerator(config["trainer"]["accelerator"])


def check_data(experiment: Experiment, dataset: ImageDataset, models: Models, store: Store) -> None:
    """Raise DdoqError where the data, once they have been indexed,
    cannot serve the configuration.
    """
    config, facts = experiment.config, store.manifest(experiment.nodes.index)["facts"]
    dataset.check(facts)
    check_counts(config, facts)
    check_classes(config, models, facts)
    check_orders(config, facts)
    if config["dataset"]["on_leak"] == "error":
        refuse_leaks(store.manifest(experiment.nodes.audit)["facts"])


def try_missing(missing: list[Node], space: LabelSpace, models: Models) -> None:
    """Raise DdoqError where a pretrained generator that is needed does not load,
    or does not fit the data.

    Args:
        missing: nodes that have to be computed.
        space: the classes of the data set.
        models: finds the generators.
    """
    needed = [node for node in missing if node.stage == "generate" and node.identity.get("model")]
    if not needed:
        return
    from ddoq.stages.models import try_generators  # and torch and diffusers

    try_generators(needed, space, models)
