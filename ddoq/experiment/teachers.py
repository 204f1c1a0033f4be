"""Teachers of configurations: what stands for them in keys, and the order of their outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ddoq.config.parts import components
from ddoq.data.class_order import outputs_of_classes, read_order
from ddoq.data.label_space import LabelSpace, imagenet_wnids
from ddoq.experiment.models import Models, networks_of

Conf = Mapping[str, Any]


def teacher_identity(conf: Conf, models: Models, key: str) -> dict:
    """Return what a teacher's key is made of:
    weights and the order of the outputs by content, not by path.

    Args:
        conf: of a teacher.
        models: finds weights.
        key: where in the configuration it stands.

    Raises:
        DataError: its weights or the file of its order are not there.
    """
    if "members" in conf:
        members = {
            name: teacher_identity(member, models, f"{key}.members.{name}")
            for name, member in conf["members"].items()
        }
        return {**conf, "members": members}
    dropped = {"path", "student", "protocol", "order"}
    identity = {name: value for name, value in conf.items() if name not in dropped}
    if conf.get("order") is not None:
        identity["order"] = read_order(conf["order"], f"{key}.order")
    return identity | {"weights": models.identify(conf, f"{key}.path") if "path" in conf else None}


def seen_test_images(config: Conf) -> str | None:
    """Return the words for networks of ImageNet that judge images of which they were shown those
    that students are tested on: fastai's splits test on some of ImageNet's training images.
    """
    if config["dataset"].get("source") != "fastai":
        return None
    networks = [conf for conf, _ in networks_of(config)] + [*config["compare"]["teachers"].values()]
    names = {
        conf["model"]
        for conf in networks
        if "model" in conf and conf.get("classes", "imagenet") == "imagenet"
    }
    if not names:
        return None
    return (
        f"{', '.join(sorted(names))}: trained on ImageNet, fastai's test images among them: "
        "its labels, features and accuracies are optimistic, for every arm alike"
    )


def place_of(teacher: Conf, config: Conf) -> str:
    """Return where in a configuration a teacher of the run or of its comparisons stands."""
    compared = config["compare"]["teachers"].items()
    return next(
        (f"compare.teachers.{name}" for name, conf in compared if conf is teacher), "teacher"
    )


def check_orders(config: Conf, index: Conf) -> None:
    """Raise DataError where a file that names outputs does not name each class
    of the data set once.

    Args:
        config: resolved.
        index: facts of the ``index`` artefact.
    """
    for key, group, conf in components(config):
        if group == "teacher" and conf.get("order") is not None:
            names, space = read_order(conf["order"], f"{key}.order"), LabelSpace.from_facts(index)
            outputs_of_classes(
                names, space, len(_default_names(conf, index["class_names"])), f"{key}.order"
            )


def _default_names(conf: Conf, class_names: Sequence[str]) -> list[str]:
    """Return the class of every output of a pretrained teacher that names none."""
    return imagenet_wnids() if conf.get("classes") == "imagenet" else list(class_names)


def named_outputs(conf: Conf, class_names: Sequence[str]) -> list[str]:
    """Return the class of every output of a pretrained teacher, by its identity."""
    return list(conf.get("order") or _default_names(conf, class_names))


def members_of(conf: Conf) -> Iterator[tuple[str, Conf]]:
    """Yield the name and the configuration of all members of an ensemble;
    of another teacher, itself.
    """
    yield from (conf.get("members") or {"": conf}).items()
