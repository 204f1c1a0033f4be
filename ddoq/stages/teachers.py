"""Teachers of nodes: fitted here, pretrained, or several together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ddoq.pipeline.graph import Node
from ddoq.stages.fit_teacher import load_fitted
from ddoq.stages.runtime import Runtime, build, facts


def load_teacher(examined: Node, inputs: Mapping[str, Path], runtime: Runtime):
    """Return the teacher that a ``check_teacher`` node has examined, or is to examine.

    Args:
        examined: the node.
        inputs: folders of the inputs, among them ``index`` and those of the fitted networks.
        runtime: finds pretrained weights.
    """
    from ddoq.labelers import Ensemble

    def load(conf: Mapping, name: str):
        fitted = f"fitted.{name}"
        if fitted in inputs:
            return load_fitted(examined.inputs[fitted], inputs[fitted], inputs["index"])
        known = facts(inputs["index"])
        path = runtime.models.place(conf["weights"], conf)
        options = {"path": path, "num_classes": len(known["class_names"])}
        if "classes" in conf:
            from ddoq.data.label_space import LabelSpace

            options["label_space"] = LabelSpace.from_facts(known)
        return build({key: value for key, value in conf.items() if key != "weights"}, **options)

    conf = examined.identity["teacher"]
    if "members" in conf:
        return Ensemble({name: load(member, name) for name, member in conf["members"].items()})
    return load(conf, "")
