"""Methods that optimise images."""

from ddoq.distillers.base import Distiller
from ddoq.distillers.dm import DM, M3D
from ddoq.distillers.gradients import DC
from ddoq.distillers.idm import IDM
from ddoq.distillers.synthetic import Synthetic
from ddoq.distillers.task import Batch, Task

__all__ = ["DC", "DM", "IDM", "M3D", "Batch", "Distiller", "Synthetic", "Task"]
