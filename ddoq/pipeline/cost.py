"""What a stage costs: seconds and peak memory of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def measure_cost(interval: float = 0.05) -> Iterator[dict]:
    """Yield a dict that holds ``seconds`` and ``peak_mib`` (resident memory) once the block has ended.

    ``ru_maxrss`` only ever grows within a process, so the peak of one stage is sampled instead.
    """
    cost: dict = {}
    process, peak, done = psutil.Process(), [0], threading.Event()

    def sample() -> None:
        while True:
            peak[0] = max(peak[0], process.memory_info().rss)
            if done.wait(interval):
                return

    sampler = threading.Thread(target=sample, daemon=True)
    start = time.perf_counter()
    sampler.start()
    try:
        yield cost
    finally:
        done.set()
        sampler.join()
        cost.update(seconds=round(time.perf_counter() - start, 3), peak_mib=round(peak[0] / 2**20, 1))
