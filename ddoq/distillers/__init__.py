"""Methods that optimise images."""

from ddoq.distillers.base import Batch, Distiller, Task
from ddoq.distillers.dm import DM
from ddoq.distillers.synthetic import Synthetic

__all__ = ["DM", "Batch", "Distiller", "Synthetic", "Task"]
