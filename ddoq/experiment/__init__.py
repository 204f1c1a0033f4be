"""What a configuration asks for: the nodes of its graph, the routes of its arms,
the rows of its tables.

Plans and reports are made of it alone: nothing in here computes, or imports torch.
"""

from ddoq.experiment.entries import Entry
from ddoq.experiment.experiment import Experiment
from ddoq.experiment.models import Models

__all__ = ["Entry", "Experiment", "Models"]
