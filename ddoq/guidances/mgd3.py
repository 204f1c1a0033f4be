"""Mode guidance."""

from __future__ import annotations

from dataclasses import dataclass

from ddoq.guidances.base import Guidance, Moment, Shift, Step
from ddoq.options import NotNegativeFloat, Share


@dataclass(kw_only=True)
class MGD3(Guidance):
    """Every step is moved towards the image's point by ``scale * sigma * (point - clean)``.

    MGD3 (Chan-Santiago et al. 2025): sigma, the standard deviation, not the variance; one mode per
    image. Its modes are k-means centroids of posterior means, half of them of mirrored images;
    here they are the points of the arm's quantizer, of latents as ``encoder`` makes them.

    The same as ``generator.mode_guidance`` and ``generator.mode_stop``, key and bytes included.

    Args:
        scale: strength of the pull.
        stop: guided while the time is above this share of the schedule's. The source's script
            stops there, its default is 0.
    """

    scale: NotNegativeFloat = 0.1
    stop: Share = 0.5

    def acts(self, moment: Moment) -> bool:
        """Tell whether the time is above that of the stop."""
        return moment.time > self.stop * moment.num_times

    def shift(self, step: Step) -> Shift:
        """Move the next sample."""
        return Shift(mean=self.scale * step.sigma * (step.points - step.clean))
