"""CPU seconds of the checks of what stages hand over, inside a run:
`python tests/benchmarks/checks.py [OVERRIDE ...]`.

Run in this process into a folder of its own, so that nothing is in the store; probes are no checks.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ddoq.data import image_set, indexed
from ddoq.utils.handover import Batches, Handover
from support.runs import run_here

#: Where checks are called, by the object that holds them.
CHECKS = (
    *((Handover, name) for name in ("finite", "shape", "count", "order", "masses", "facts")),
    (Batches, "check"),
    (indexed, "labels_of"),  # read only to be compared with
    (image_set, "_complete"),
)


class Clock:
    """Sums the CPU seconds of calls, those inside another one once,
    in whatever threads they are.
    """

    def __init__(self):
        self.seconds, self.calls, self._inside = Counter(), Counter(), threading.local()

    def timed(self, name: str, function):
        """Return a function that does the same and is timed."""

        def call(*args, **kwargs):
            if getattr(self._inside, "any", False):
                return function(*args, **kwargs)
            self._inside.any, start = True, time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.thread_time() - start
                self.calls[name] += 1
                self._inside.any = False

        return call


def main(overrides: list[str]) -> None:
    """Run once and print what the checks cost, and their share of the run."""
    clock = Clock()
    for place, name in CHECKS:
        setattr(place, name, clock.timed(name, getattr(place, name)))
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run_here(*overrides, "trainer.accelerator=cpu", f"paths.outputs={folder}")
        total = time.process_time() - start
    for name, seconds in clock.seconds.most_common():
        print(f"{name:<16}{clock.calls[name]:>8} calls {seconds:9.3f} s")
    spent = clock.seconds.total()
    print(f"checks {spent:.3f} of {total:.1f} CPU seconds: {spent / total:.3%}")


if __name__ == "__main__":
    main(sys.argv[1:])
