"""Files of weights and model configurations: nothing in them is run, and they are judged before they are used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from ddoq.errors import DataError, DdoqError
from ddoq.utils.digests import Digests
from ddoq.utils.io import read_json

if TYPE_CHECKING:
    from torch import Tensor, nn


def hash_file(path: str, key: str, digests: Digests) -> str:
    """Return what stands for a local file of weights in a content key: its sha256.

    Raises:
        DataError: there is no such file.
    """
    require_file(path, key)
    file = Path(path)
    return digests.of(file.parent, [file.name])[0].sha256


def require_file(path: str, key: str) -> None:
    """Raise DataError where there is no file ``path``."""
    if not Path(path).is_file():
        raise DataError(f"{key}: there is no file {path}", f"put the weights there, or correct {key}")


def check_file(path: Path, key: str) -> None:
    """Raise DataError where a ``.safetensors`` file is none or is cut off. Its header tells; no weights are read."""
    from safetensors import safe_open

    if path.suffix == ".safetensors":
        with loading(str(path), key), safe_open(path, "np"):
            pass


def read_config(file: Path, key: str) -> dict[str, Any]:
    """Return the object in a model's JSON file.

    Raises:
        DataError: there is no such object in it.
    """
    try:
        found = read_json(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{key}: {file} is no JSON ({reason(error)})", "replace it by the model's own") from error
    if not isinstance(found, dict):
        raise DataError(f"{key}: {file} holds no JSON object", "replace it by the model's own")
    return found


def read_weights(path: str, model: str, key: str) -> dict[str, Any]:
    """Return the tensors of a local ``.safetensors`` or ``.pth`` file by name; nothing is unpickled.

    Args:
        path: of the file.
        model: whose weights they are, for errors.
        key: config key that errors name.

    Raises:
        DataError: there is no such file, or it holds no weights.
    """
    import torch
    from safetensors.torch import load_file

    require_file(path, key)
    with loading(model, key):
        safe = Path(path).suffix == ".safetensors"
        weights = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
        weights = weights.get("state_dict", weights.get("model", weights))  # as training scripts wrap them
        if not weights:  # timm would take the hub's
            raise ValueError("no tensors in it")
        return {name.removeprefix("module."): tensor for name, tensor in weights.items()}


def require_finite(
    network: nn.Module,
    model: str,
    key: str,
    remedy: str = "replace the file by an undamaged one",
    error: type[DdoqError] = DataError,
) -> None:
    """Raise ``error`` where a weight of a network is NaN or infinite: whatever it computed would be, hours later."""
    tensors = network.state_dict()
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise error(
            f"{key}: {len(broken)} of the {len(tensors)} tensors of {model} hold NaN or infinite weights, "
            f"e.g. {broken[0]}",
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


@contextmanager
def loading(model: str, key: str) -> Iterator[None]:
    """Turn whatever is raised while one model is read into two lines."""
    try:
        yield
    except DdoqError:
        raise
    except Exception as error:  # torch, safetensors and the models raise whatever damaged bytes lead them to
        raise DataError(
            f"{key}: the weights of {model} do not load ({reason(error)})", "check the file and the model"
        ) from error


def reason(error: Exception) -> str:
    """Return the first sentence of an error, cut to 200 characters; torch puts what is wrong into its second line."""
    first, *others = str(error).splitlines() or [type(error).__name__]
    said = f"{first} {others[0]}" if first.endswith(":") and others else first.split(". ")[0]
    return shorten(said, 200, placeholder=" …")
