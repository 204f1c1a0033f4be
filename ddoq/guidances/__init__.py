"""Guidances: what steers the reverse process of a diffusion model."""

from ddoq.guidances.base import Cells, Guidance, Moment, Shift, Step, Windowed
from ddoq.guidances.coda import CoDA
from ddoq.guidances.dmgd import DMGD
from ddoq.guidances.finished import Finished
from ddoq.guidances.igd import IGD
from ddoq.guidances.manifoldgd import ManifoldGD
from ddoq.guidances.mgd3 import MGD3
from ddoq.guidances.ot import OTGuided
from ddoq.guidances.uag import UAG

__all__ = [
    "DMGD",
    "IGD",
    "MGD3",
    "UAG",
    "Cells",
    "CoDA",
    "Finished",
    "Guidance",
    "ManifoldGD",
    "Moment",
    "OTGuided",
    "Shift",
    "Step",
    "Windowed",
]
