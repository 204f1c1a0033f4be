"""What computing some nodes will take, from what the ledger says the like of them took."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from ddoq.pipeline.graph import STAGES, Node, data_key
from ddoq.pipeline.store import Store
from ddoq.utils.io import parse_json


@dataclass(frozen=True)
class Estimate:
    """How many nodes of each stage there are to compute, and about how long one process takes for them.

    ``seconds`` sums the nodes whose like have been computed in this store before; ``num_unknown`` are not in it.
    """

    counts: dict[str, int]
    seconds: float
    num_unknown: int

    def time(self) -> str:
        """Return the time in words, and how much of the work it does not cover."""
        if not self.counts:
            return "in the store"
        known = f"about {duration(self.seconds)}" if self.seconds else ""
        unknown = f"{self.num_unknown} never timed" if self.num_unknown else ""
        return ", ".join(filter(None, (known, unknown)))

    def __str__(self) -> str:
        counts = "  ".join(f"{stage} {number}" for stage, number in self.counts.items())
        return f"{counts}  ({self.time()})" if counts else "nothing"


class Ledger:
    """Medians of the seconds that computations in a store took, on the same data: of the same stage and title, else of
    the same stage.
    """

    def __init__(self, store: Store):
        took: dict[tuple[str, ...], list[float]] = defaultdict(list)
        path = store.root / "ledger.jsonl"
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                entry = parse_json(line.decode())
                seconds = float(entry["seconds"])
                for of in _levels(entry["data"], entry["stage"], entry["title"]) if math.isfinite(seconds) else ():
                    took[of].append(seconds)
            except (ValueError, KeyError, TypeError, OverflowError):  # cut off when its process was killed
                continue
        self._seconds = {of: median(seconds) for of, seconds in took.items()}

    def _of(self, node: Node) -> float | None:
        levels = _levels(data_key(node), node.stage, node.title)
        return next((self._seconds[of] for of in levels if of in self._seconds), None)

    def estimate(self, nodes: Iterable[Node]) -> Estimate:
        """Return what computing some nodes will take, those that several runs need counted once."""
        distinct = {node.key: node for node in nodes}.values()
        seconds = [self._of(node) for node in distinct]
        counts = Counter(node.stage for node in distinct)
        return Estimate(
            {stage: counts[stage] for stage in STAGES if counts[stage]},
            sum(one for one in seconds if one is not None),
            seconds.count(None),
        )


def _levels(*of: str) -> list[tuple[str, ...]]:
    """Return what one computation is like, the closest first."""
    return [of, of[:-1]]


def expected(nodes: Iterable[Node], store: Store) -> Estimate:
    """Return what computing some nodes will take."""
    return Ledger(store).estimate(nodes)


def duration(seconds: float) -> str:
    """Return a time in words: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
