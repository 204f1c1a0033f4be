"""What computing some nodes will take, from what the ledger says the like of them took."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from ddoq.pipeline.graph import Node, data_key
from ddoq.pipeline.schedule import duration_on
from ddoq.pipeline.stages import STAGES
from ddoq.pipeline.store import Store, read_ledger
from ddoq.utils.console import duration

_LONGEST = 1e9  # seconds that a computation took: what is more, or NaN, is a damaged line


@dataclass(frozen=True)
class Estimate:
    """How many nodes of each stage there are to compute,
    and about how long the run takes for them.

    ``seconds``: for the nodes whose like have been computed in this store before;
    ``num_unknown`` are not in it.
    """

    counts: dict[str, int]
    seconds: float
    num_unknown: int

    def time(self) -> str:
        """Return the time in words, and how much of the work it does not cover."""
        if not self.counts:
            return "in the store"
        timed = f"about {duration(self.seconds)}" if self.seconds else ""
        untimed = f"{self.num_unknown} never timed" if self.num_unknown else ""
        return ", ".join(filter(None, (timed, untimed)))

    def __str__(self) -> str:
        counts = "  ".join(f"{stage} {number}" for stage, number in self.counts.items())
        return f"{counts}  ({self.time()})" if counts else "nothing"


class Ledger:
    """Medians of the seconds that computations in a store took, on the same data: of the same stage
    and title, else of the same stage.
    """

    def __init__(self, store: Store):
        took: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for entry in read_ledger(store.root):
            data, stage, title, seconds = (
                entry.get(name) for name in ("data", "stage", "title", "seconds")
            )
            # Old stores say no data.
            is_named = data and all(isinstance(part, str) for part in (data, stage, title))
            if is_named and isinstance(seconds, int | float) and 0 <= seconds < _LONGEST:
                for of in _levels(data, stage, title):
                    took[of].append(seconds)
        self._seconds = {of: median(seconds) for of, seconds in took.items()}

    def of(self, node: Node) -> float | None:
        """Return what computing a node will take, in seconds."""
        levels = _levels(data_key(node), node.stage, node.title)
        return next((self._seconds[of] for of in levels if of in self._seconds), None)

    def estimate(self, nodes: Iterable[Node], num_processes: int = 1) -> Estimate:
        """Return what computing some nodes will take, those that several runs need counted once.

        Args:
            nodes: in order of preference.
            num_processes: that compute at once.
        """
        distinct = list({node.key: node for node in nodes}.values())
        counts = Counter(node.stage for node in distinct)
        return Estimate(
            {stage: counts[stage] for stage in STAGES if counts[stage]},
            duration_on(distinct, lambda node: self.of(node) or 0.0, num_processes),
            [self.of(node) for node in distinct].count(None),
        )


def _levels(*of: str) -> list[tuple[str, ...]]:
    """Return what one computation is like, the closest first."""
    return [of, of[:-1]]


def expected(nodes: Iterable[Node], store: Store, num_processes: int = 1) -> Estimate:
    """Return what computing some nodes will take; see ``Ledger.estimate``."""
    return Ledger(store).estimate(nodes, num_processes)
