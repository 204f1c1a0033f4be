"""Dataset distillation as pushforward optimal quantization.

import ddoq
data = ddoq.distill("/my/photos", ipc=5)  # or ddoq.load_distilled("outputs/runs/<run>/distilled")
image, label, weight = data[0]
"""

from importlib import import_module

__version__ = "0.1.0"

#: Where they stand. They are imported late, so that `ddoq --help` does not wait for torch.
_MODULES = {
    "DistilledDataset": "ddoq.data.distilled",
    "distill": "ddoq.notebook",
    "load_distilled": "ddoq.data.distilled",
}
__all__ = list(_MODULES)


def __getattr__(name: str):
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'ddoq' has no attribute '{name}'")
