"""Weights from a local folder or a hub, with errors that say where to put the files."""

from __future__ import annotations

import re
from pathlib import Path

from ddoq.errors import ConfigError, DataError
from ddoq.utils.io import read_json

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def model_folder(path: str, subfolder: str, key: str) -> Path | None:
    """Return the local folder that holds the model's ``config.json``; ``None`` where ``path`` is a hub id.

    Raises:
        DataError: ``path`` is neither a model folder nor of the form ``owner/name``.
    """
    for folder in (Path(path) / subfolder, Path(path)):
        if (folder / "config.json").is_file():
            return folder
    if Path(path).is_dir() or not _HUB_ID.fullmatch(path):
        raise DataError(
            f"{key}: no model in {path!r}",
            f"put config.json and *.safetensors into {Path(path).resolve() / subfolder}, or give a hub id",
        )
    return None


def load_pretrained(path: str, class_names: tuple[str, ...], subfolder: str, key: str):
    """Load a diffusers model whose class is one of ``class_names``. Only safetensors are read, never pickles.

    Args:
        path: a local folder, or a hub id ``owner/name``.
        class_names: classes that fit, the first one being assumed for a hub id.
        subfolder: where pipelines keep this kind of model.
        key: config key that errors name.
    """
    import diffusers

    folder = model_folder(path, subfolder, key)
    if folder is None:
        return _from_hub(getattr(diffusers, class_names[0]), path, subfolder, key)
    found = read_json(folder / "config.json").get("_class_name")
    # Published DiT checkpoints still carry the class name from before diffusers split its transformers up.
    found = class_names[0] if found == "Transformer2DModel" else found
    if found not in class_names:
        raise ConfigError(f"{key}: {folder} holds a {found}", f"give a folder with one of: {', '.join(class_names)}")
    try:
        return getattr(diffusers, found).from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{key}: the weights in {folder} do not load ({reason})", "replace the folder by an undamaged one"
        ) from error


def _from_hub(model_class, path: str, subfolder: str, key: str):
    from huggingface_hub import hf_hub_download

    try:  # one small request with a short time limit tells at once whether there is a network
        hf_hub_download(path, f"{subfolder}/config.json", etag_timeout=5)
    except Exception as error:  # the hub, requests and urllib each raise their own
        if "404" not in str(error):
            raise DataError(
                f"{key}: {path} is no local folder and the hub cannot be reached ({type(error).__name__})",
                f"download it elsewhere, put it into a folder and set {key}=/that/folder",
            ) from error
        subfolder = None
    return model_class.from_pretrained(path, subfolder=subfolder, use_safetensors=True)
