"""Weights from a local folder or a hub, with errors that say where to put the files."""

from __future__ import annotations

import re
from pathlib import Path

from ddoq.errors import ConfigError, DataError, did_you_mean
from ddoq.utils.io import file_digest, read_json

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


def hash_file(path: str, key: str) -> str:
    """Return what stands for a local file of weights in a content key.

    Raises:
        DataError: there is no such file.
    """
    if not Path(path).is_file():
        raise DataError(f"{key}: there is no file {path}", f"put the weights (*.safetensors) there, or correct {key}")
    return file_digest(Path(path))


def load_timm(model: str, path: str | None, key: str, **options):
    """Return a timm model without its classifier.

    Args:
        model: timm's name.
        path: a local file of weights; ``None``: those that timm names, from the hub.
        key: config key that errors name.
        options: of ``timm.create_model``.

    Raises:
        ConfigError: timm has no such model.
        DataError: the weights cannot be had or do not fit.
    """
    import timm

    if not timm.is_model(model):
        near = did_you_mean(model, timm.list_models() + timm.list_pretrained())
        raise ConfigError(f"{key.rsplit('.', 1)[0]}.model: timm has no '{model}'", near)
    where = {"pretrained_cfg_overlay": {"file": str(path)}} if path else {}
    if not path:
        _require_hub(timm.get_pretrained_cfg(model).hf_hub_id, key)
    from safetensors import SafetensorError

    try:
        return timm.create_model(model, pretrained=True, num_classes=0, **where, **options)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{key}: the weights of {model} do not load ({reason})", "check the file and the model"
        ) from error


def _require_hub(hub_id: str | None, key: str) -> None:
    """Raise DataError at once where a timm model is neither in the local cache nor to be had from the hub."""
    from huggingface_hub import try_to_load_from_cache

    if hub_id is None:
        raise DataError(f"{key}: timm names no weights for this model", f"set {key} to a file of weights")
    if try_to_load_from_cache(hub_id, "model.safetensors"):
        return
    _hub_files(
        hub_id,
        f"{key}: {hub_id} is not in the local cache",
        f"download model.safetensors elsewhere and set {key}=/that/model.safetensors",
    )


def _hub_files(hub_id: str, cause: str, remedy: str) -> set[str]:
    """Return the names of a model's files on the hub: one small request without retries tells if there is a network.

    Raises:
        DataError: the hub does not answer, or does not give this model; with ``cause`` and ``remedy``.
    """
    from huggingface_hub import HfApi

    try:
        return {file.rfilename for file in HfApi().model_info(hub_id, timeout=5).siblings}
    except Exception as error:  # the hub and httpx each raise their own
        raise DataError(f"{cause}, and the hub does not give it ({type(error).__name__})", remedy) from error


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
    """Load from the local cache of the hub, else from the hub itself."""
    from huggingface_hub import try_to_load_from_cache

    cached = [folder for folder in (subfolder, None) if try_to_load_from_cache(path, _config_name(folder))]
    if cached:
        return model_class.from_pretrained(path, subfolder=cached[0], use_safetensors=True)
    files = _hub_files(
        path,
        f"{key}: {path} is no local folder",
        f"download it elsewhere, put config.json and *.safetensors into a folder and set {key}=/that/folder",
    )
    return model_class.from_pretrained(
        path, subfolder=subfolder if _config_name(subfolder) in files else None, use_safetensors=True
    )


def _config_name(subfolder: str | None) -> str:
    return f"{subfolder}/config.json" if subfolder else "config.json"
