"""Selections: from several draws of every point to as many images as there are points."""

from ddoq.selections.base import Candidates, Choice, Everything, Outputs, Selection
from ddoq.selections.confidence import Confidence
from ddoq.selections.difficulty import Difficulty
from ddoq.selections.s3 import S3
from ddoq.selections.spread import KCenter, Nearest

__all__ = [
    "S3",
    "Candidates",
    "Choice",
    "Confidence",
    "Difficulty",
    "Everything",
    "KCenter",
    "Nearest",
    "Outputs",
    "Selection",
]
