"""The narrow waist: whichever route an arm took to its images, later stages read them here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ddoq.data.image_set import ImageSet
from ddoq.stages.quantize import load_points
from ddoq.stages.runtime import index_facts


def image_set(inputs: Mapping[str, Path]) -> ImageSet:
    """Return the images among the inputs of a node, before they have weights.

    Args:
        inputs: ``distill``, of a method; ``select``, of a choice among several draws; or
            ``generate`` with ``quantize`` and ``index``.

    Raises:
        StoreError: images are missing, or they are not those of the points.
    """
    for stage in ("distill", "select"):
        if stage in inputs:
            return ImageSet.load(inputs[stage])
    class_names = index_facts(inputs["index"]).class_names
    return ImageSet.of_points(inputs["generate"], load_points(inputs), class_names)
