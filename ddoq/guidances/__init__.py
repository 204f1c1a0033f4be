"""Guidances: what steers the reverse process of a diffusion model."""

from ddoq.guidances.base import Cells, Guidance, Moment, Shift, Step, Windowed
from ddoq.guidances.dmgd import DMGD
from ddoq.guidances.finished import Finished
from ddoq.guidances.mgd3 import MGD3

__all__ = ["DMGD", "MGD3", "Cells", "Finished", "Guidance", "Moment", "Shift", "Step", "Windowed"]
