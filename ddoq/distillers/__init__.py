"""Methods that optimise images."""

from ddoq.distillers.base import Batch, Distiller, Task
from ddoq.distillers.dm import DM
from ddoq.distillers.gradients import DC
from ddoq.distillers.synthetic import Synthetic

__all__ = ["DC", "DM", "Batch", "Distiller", "Synthetic", "Task"]
