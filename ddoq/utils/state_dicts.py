"""The weights in a file, read without running anything, and given to a network that they fit."""

from __future__ import annotations

import argparse
import codecs
import pickle
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ddoq.errors import DataError, DdoqError
from ddoq.utils.weights import loading, reason, require_file


def read_weights(path: str, model: str, key: str) -> dict[str, Any]:
    """Return the tensors of a local ``.safetensors`` or ``.pth`` file by name;
    nothing that is pickled is run.

    Training scripts wrap them (``state_dict``, ``model``, ``net``, ...), name them by what they
    were wrapped in (``module.``, ``_orig_mod.``, Lightning's ``model.``), and add what profilers
    count: all that is taken off.

    Args:
        path: of the file.
        model: whose weights they are, for errors.
        key: config key that errors name.

    Raises:
        DataError: there is no such file, or it holds no weights.
    """
    require_file(path, key)
    weights = _unwrapped(read_stored(path, model, key), path, key)
    weights = {
        name: tensor for name, tensor in weights.items() if name.rpartition(".")[2] not in _COUNTERS
    }
    while prefix := next(
        (p for p in _PREFIXES if all(name.startswith(p) for name in weights)), None
    ):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def read_stored(path: str, model: str, key: str, device: str = "cpu") -> Any:
    """Return what a file of weights holds, as it was saved.

    Args:
        path: of the file.
        model: whose weights they are, for errors.
        key: config key that errors name.
        device: ``meta`` reads shapes alone.

    Raises:
        DataError: it is damaged, or holds pickled objects that are more than tensors,
            numbers and arguments.
    """
    with loading(model, key):
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        try:
            with torch.serialization.safe_globals(_plain_types()):
                return torch.load(path, map_location=device, weights_only=True)
        except pickle.UnpicklingError as error:
            raise _pickled(path, key, error) from error


#: Under which names training scripts save a network's weights.
_WRAPPERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "net",
    "network",
    "weights",
    "ema",
    "model_ema",
    "state_dict_ema",
)


#: What wrappers put before every name: DataParallel, ``torch.compile``,
#: a Lightning module's attribute.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")


#: Numbers that profilers (thop) and averages keep among the weights.
_COUNTERS = ("total_ops", "total_params", "n_averaged")


def _unwrapped(stored: Any, path: str, key: str) -> dict[str, Tensor]:
    """Return the tensors by name that are at the top of a file or in one of its usual entries."""
    weights = stored if isinstance(stored, Mapping) else {}
    while inner := next(
        (weights[name] for name in _WRAPPERS if isinstance(weights.get(name), Mapping)), None
    ):
        weights = inner
    tensors = {
        str(name): entry for name, entry in weights.items() if isinstance(entry, torch.Tensor)
    }
    if not weights:  # timm would take the hub's
        raise DataError(f"{key}: {path} holds no tensors", f"set {key} to a file of weights")
    if not tensors:
        entries = shorten(", ".join(map(str, weights)), 100, placeholder=" …")
        raise DataError(
            f"{key}: {path} holds no weights by the usual names, but {entries}",
            "save the entry that is the network's state dict alone: python -c \"import torch; "
            f"torch.save(torch.load('{path}')['ENTRY'], 'state_dict.pth')\", "
            f"and set {key} to that file",
        )
    return tensors


def _plain_types() -> list[Any]:
    """Return what checkpoints hold besides tensors that is data and runs nothing:
    arguments and NumPy's numbers.
    """
    scalar, array = np._core.multiarray.scalar, np._core.multiarray._reconstruct
    old = [(scalar, "numpy.core.multiarray.scalar"), (array, "numpy.core.multiarray._reconstruct")]
    kinds = {
        type(np.dtype(name))
        for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
    }
    return [argparse.Namespace, codecs.encode, np.dtype, np.ndarray, scalar, array, *old, *kinds]


def _pickled(path: str, key: str, error: Exception) -> DataError:
    """Return what to say of a file that is damaged, or that only its own code could read."""
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # no archive of torch's
        foreign = []
    if not foreign:
        return DataError(
            f"{key}: {path} is no file of weights ({reason(error)})", "check the file and the model"
        )
    whole = any(name.startswith("torch.nn.modules.") for name in foreign)
    weights = "torch.load(f, 'cpu', weights_only=False).state_dict()"
    weights = weights if whole else "timm.models.load_state_dict(f, weights_only=False)"
    script = f"import torch, timm.models; f = '{path}'; torch.save({weights}, 'state_dict.pth')"
    return DataError(
        f"{key}: {path} holds {'a whole network' if whole else 'pickled objects'} "
        f"({', '.join(sorted(foreign)[:3])}), and reading that would run code",
        f'if you trust it, save its state dict alone: python -c "{script}", '
        f"and set {key}=state_dict.pth",
    )


def require_finite(
    network: nn.Module,
    model: str,
    key: str,
    remedy: str = "replace the file by an undamaged one",
    error: type[DdoqError] = DataError,
) -> None:
    """Raise ``error`` where a weight of a network is NaN or infinite:
    whatever it computed would be, hours later.
    """
    tensors = network.state_dict()
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise error(
            f"{key}: {len(broken)} of the {len(tensors)} tensors of {model} hold NaN "
            f"or infinite weights, e.g. {broken[0]}",
            remedy,
        )


def fill(network: nn.Module, weights: Mapping[str, Tensor], model: str, key: str) -> None:
    """Give a network its weights, all of them and nothing else.

    Raises:
        DataError: they are those of another network, or not finite.
    """
    with loading(model, key):
        network.load_state_dict(weights)
    require_finite(network, model, key)
