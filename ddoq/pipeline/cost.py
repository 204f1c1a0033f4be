"""What a stage costs: seconds and peak memory of this process, and of its GPU if it has one."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def measure_cost(interval: float = 0.05) -> Iterator[dict]:
    """Yield a dict that holds ``seconds``, ``peak_mib`` (resident memory) and, on a GPU,
    ``gpu_peak_mib`` in the end.

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
    if gpu := _gpu():
        gpu.reset_peak_memory_stats()
    start = time.perf_counter()
    sampler.start()
    try:
        yield cost
    finally:
        done.set()
        sampler.join()
        cost.update(
            seconds=round(time.perf_counter() - start, 3), peak_mib=round(peak[0] / 2**20, 1)
        )
        if gpu := _gpu():
            cost.update(gpu_peak_mib=round(gpu.max_memory_allocated() / 2**20, 1))


def _gpu():
    """Return torch's CUDA module where something of this process has used it;
    torch is not imported for this.
    """
    torch = sys.modules.get("torch")
    return torch.cuda if torch and torch.cuda.is_initialized() else None
