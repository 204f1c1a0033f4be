"""Files of weights and model configurations, judged before they are used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

from safetensors import safe_open

from ddoq.errors import ConfigError, DataError, DdoqError
from ddoq.utils.digests import Digests
from ddoq.utils.io import read_json

HALF = "fp16"  # the variant that is read where there is no other
WEIGHTS = "diffusion_pytorch_model"  # what diffusers calls the file


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
    if Path(path).is_dir():
        files = sorted(file for file in Path(path).iterdir() if file.suffix in _FILES)
        raise DataError(
            f"{key}: {path} is a folder, and one file of weights is wanted",
            f"set {key}={files[0]}" if files else f"set {key} to a file ({', '.join(_FILES)})",
        )
    if not Path(path).is_file():
        raise DataError(
            f"{key}: there is no file {path}", f"put the weights there, or correct {key}"
        )


#: Endings of files of weights.
_FILES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


def check_file(path: Path, key: str) -> None:
    """Raise DataError where a ``.safetensors`` file is none or is cut off.

    Its header tells; no weights are read.
    """
    if path.suffix == ".safetensors":
        with loading(str(path), key), safe_open(path, "np"):
            pass


def read_model_config(file: Path, key: str) -> dict[str, Any]:
    """Return the object in a model's JSON file.

    Raises:
        DataError: there is no such object in it.
    """
    try:
        model_config = read_json(file)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{key}: {file} is no JSON ({reason(error)})", "replace it by the model's own"
        ) from error
    if not isinstance(model_config, dict):
        raise DataError(f"{key}: {file} holds no JSON object", "replace it by the model's own")
    return model_config


def require_class(
    model_config: Mapping[str, Any], class_names: tuple[str, ...], folder: Path, key: str
) -> str:
    """Return the class of a model, by its ``config.json``;
    raise ConfigError where it is none of those that fit.
    """
    name = model_config.get("_class_name")
    # Published DiT checkpoints still carry the class name from
    # before diffusers split its transformers up.
    name = class_names[0] if name == "Transformer2DModel" else name
    if name not in class_names:
        raise ConfigError(
            f"{key}: {folder} holds a {name}",
            f"give a folder with one of: {', '.join(class_names)}",
        )
    return name


def variant_of(folder: Path, key: str) -> bool:
    """Tell whether the only weights of diffusers in a folder are those in half precision.

    Raises:
        DataError: there are none by the names that diffusers gives them.
    """
    names = {file.name for file in folder.iterdir() if file.name.startswith(f"{WEIGHTS}.")}
    endings = ("safetensors", "safetensors.index.json", "bin", "bin.index.json")
    if names & {f"{WEIGHTS}.{ending}" for ending in endings}:
        return False
    if (
        f"{WEIGHTS}.{HALF}.safetensors" in names
        or f"{WEIGHTS}.safetensors.index.{HALF}.json" in names
    ):
        return True
    others = [file for file in sorted(folder.iterdir()) if file.suffix in (".safetensors", ".bin")]
    wanted = folder / f"{WEIGHTS}{others[0].suffix if others else '.safetensors'}"
    raise DataError(
        f"{key}: {folder} has config.json, and no {wanted.name}",
        f"rename {others[0]} to {wanted.name}"
        if len(others) == 1
        else f"put {wanted.name} of this model there",
    )


@contextmanager
def loading(model: str, key: str) -> Iterator[None]:
    """Turn whatever is raised while one model is read into two lines."""
    try:
        yield
    except DdoqError:
        raise
    except Exception as error:
        # Torch, safetensors and the models raise whatever damaged bytes lead them to.
        raise DataError(
            f"{key}: the weights of {model} do not load ({reason(error)})",
            "check the file and the model",
        ) from error


def reason(error: Exception) -> str:
    """Return the first sentence of an error, cut to 200 characters;
    torch puts what is wrong into its second line.
    """
    first, *others = str(error).splitlines() or [type(error).__name__]
    message = f"{first} {others[0]}" if first.endswith(":") and others else first.split(". ")[0]
    return shorten(message, 200, placeholder=" …")
