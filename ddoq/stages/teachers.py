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

    conf = examined.identity["teacher"]
    if "members" not in conf:
        return _load(conf, "fitted.", examined, inputs, runtime)
    members = {name: _load(one, f"fitted.{name}", examined, inputs, runtime) for name, one in conf["members"].items()}
    return Ensemble(members)


def _load(conf: Mapping, fitted: str, examined: Node, inputs: Mapping[str, Path], runtime: Runtime):
    if fitted in inputs:
        return load_fitted(examined.inputs[fitted], inputs[fitted], inputs["index"])
    known = facts(inputs["index"])
    path = runtime.models.place(conf["weights"], conf)
    options = {"path": path, "num_classes": len(known["class_names"])}
    if "classes" in conf:
        from ddoq.data.label_space import LabelSpace

        options["label_space"] = LabelSpace.from_facts(known)
    return build({key: value for key, value in conf.items() if key != "weights"}, **options)
