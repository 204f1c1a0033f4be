"""Dataset distillation as pushforward optimal quantization.

from ddoq import load_distilled
data = load_distilled("outputs/runs/<run>/distilled")
image, label, weight = data[0]
"""

__version__ = "0.1.0"
__all__ = ["DistilledDataset", "load_distilled"]


def __getattr__(name: str):
    if name in __all__:  # imported late, so that `ddoq --help` does not wait for torch
        from ddoq.data import distilled

        return getattr(distilled, name)
    raise AttributeError(f"module 'ddoq' has no attribute '{name}'")
