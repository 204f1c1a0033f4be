"""Labelers: the target distribution of every distilled image."""

from ddoq.labelers.hard import Hard
from ddoq.labelers.teacher import Teacher

__all__ = ["Hard", "Teacher"]
