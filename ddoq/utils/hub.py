"""Where pretrained models are: in folders, on the hub, and what to do where they are in neither."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import huggingface_hub

from ddoq.errors import DataError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")
#: Copies of the same weights that are not read.
_VARIANT = re.compile(r"fp16|bf16|non_ema|flax|onnx|openvino")
_HALF = "fp16"  # but where it is the only copy

#: What the models of the shipped configurations are: size of what is read, and licence.
KNOWN = {
    "facebook/DiT-XL-2-256": "2.7 GB, CC-BY-NC 4.0: no commercial use",
    "facebook/DiT-XL-2-512": "2.7 GB, CC-BY-NC 4.0: no commercial use",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "4.3 GB, CreativeML OpenRAIL-M",
    "stabilityai/sd-vae-ft-mse": "335 MB, MIT",
    "stabilityai/sd-vae-ft-ema": "335 MB, MIT",
    "vae_taesd": "5 MB, MIT, a folder of diffusers' AutoencoderTiny: madebyollin/taesd of the hub",
    "vae_taef2": "5 MB, MIT, "
    "taef2_encoder.pth and taef2_decoder.pth of github.com/madebyollin/taesd",
}


def is_hub_id(path: str) -> bool:
    """Tell whether ``path`` has the form ``owner/name`` or ``owner/name@revision``
    and is no local folder.
    """
    return not Path(path).exists() and _HUB_ID.fullmatch(path) is not None


def locate(path: str, folders: Iterable[str | Path], holds: Callable[[Path], bool]) -> str:
    """Return the place of a model: the first of ``folder/path`` that holds it,
    else ``path`` as it is.
    """
    if Path(path).exists():
        return path
    return next(
        (str(Path(folder) / path) for folder in folders if holds(Path(folder) / path)), path
    )


def part_folder(folder: str | Path, subfolder: str, marker: str) -> Path | None:
    """Return where one part of a model is: in its sub-folder or at the top;
    ``None`` where it is in neither.

    A VAE may be one file, with its configuration beside it.
    """
    top = Path(folder)
    top = top.parent if subfolder == "vae" and top.is_file() else top
    return next((place for place in (top / subfolder, top) if (place / marker).is_file()), None)


def local_part(path: str, subfolder: str, marker: str) -> Path | None:
    """Return where one part of a model is on this machine, the hub's cache included;
    ``None`` where it is not.
    """
    if (folder := part_folder(path, subfolder, marker)) or not is_hub_id(path):
        return folder
    repo, _, revision = path.partition("@")
    for name in (f"{subfolder}/{marker}", marker):
        cached = huggingface_hub.try_to_load_from_cache(repo, name, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached).parent
    return None


def model_folder(path: str, subfolder: str, key: str, marker: str = "config.json") -> Path:
    """Return the local folder of one part of a model,
    from the hub (its cache first) where ``path`` is a hub id.

    Args:
        path: a local folder, or a hub id ``owner/name`` or ``owner/name@revision``.
        subfolder: where pipelines keep this part; it may also lie at the top.
        key: config key that errors name.
        marker: the file that tells the part is there.

    Raises:
        DataError: there is no such model, or the hub does not give it.
    """
    if folder := local_part(path, subfolder, marker):
        return folder
    if not is_hub_id(path):
        raise DataError(
            f"{key}: no model in {path!r} (no {marker})",
            _remedy(Path(path), subfolder, key, marker),
        )
    repo, _, revision = path.partition("@")
    files = hub_files(path, key)
    wanted = wanted_files(files, subfolder, marker)
    snapshot = huggingface_hub.snapshot_download(
        repo, revision=revision or None, allow_patterns=wanted
    )
    return part_folder(snapshot, subfolder, marker)


#: How to make what is missing of a model, by the part:
#: with {path}, {top}, {folder} and {key} to be filled in.
_REMEDIES = {
    "vae": "copy the config.json of this VAE beside it "
    "(that of Stable Diffusion 1 and 2, where there is a network: "
    "`hf download stabilityai/sd-vae-ft-mse config.json --local-dir '{top}'`)",
    "unet": "where there is a network make a folder of it: "
    'python -c "from diffusers import StableDiffusionPipeline as P; '
    "P.from_single_file('{path}').save_pretrained('{folder}')\", and set {key}='{folder}'",
    "scheduler": "write the noise schedule of its training there, e.g. "
    'python -c "from diffusers import DDIMScheduler as S; '
    "S(beta_schedule='linear', beta_start=1e-4, beta_end=0.02, "
    "prediction_type='epsilon', clip_sample=False).save_pretrained('{folder}')\"",
}


def _remedy(path: Path, subfolder: str, key: str, marker: str) -> str:
    """Return what to do where a path has no part of a model that is wanted."""
    path = path.resolve()
    if path.is_file() and part_folder(path.parent, subfolder, marker):
        return f"set {key}={path.parent}"
    if path.is_file() and subfolder in ("vae", "unet"):
        return _REMEDIES[subfolder].format(
            path=path, top=path.parent, folder=path.with_suffix(""), key=key
        )
    if path.is_file():
        return f"set {key} to the folder of a model, with {subfolder}/{marker}"
    if path.is_dir() and subfolder == "scheduler":
        return _REMEDIES["scheduler"].format(folder=path / subfolder)
    return f"put {marker} and *.safetensors into {path / subfolder}, or give a hub id"


def wanted_files(files: set[str], subfolder: str, marker: str) -> list[str]:
    """Return the files of one part of a model on the hub:
    its configuration and one copy of its weights.
    """
    top = f"{subfolder}/{marker}" not in files
    inside = [f for f in sorted(files) if ("/" not in f if top else f.startswith(f"{subfolder}/"))]
    half = [f for f in inside if f.endswith(f".{_HALF}.safetensors")]
    inside = [f for f in inside if not _VARIANT.search(f)]
    weights = (
        [f for f in inside if f.endswith(".safetensors")]
        or [f for f in inside if f.endswith(".bin")]
        or half
    )
    return weights + [f for f in inside if f.endswith((".json", ".txt"))]


def hub_files(path: str, key: str, remedy: str | None = None) -> set[str]:
    """Return the names of a model's files on the hub:
    one small request without retries tells if there is a network.

    Raises:
        DataError: the hub does not answer, or does not give this model:
            what it is, and where to put it.
    """
    repo, _, revision = path.partition("@")
    about = f" ({KNOWN[repo]})" if repo in KNOWN else ""
    try:
        about_repo = huggingface_hub.HfApi().model_info(repo, revision=revision or None, timeout=5)
        return {file.rfilename for file in about_repo.siblings}
    except Exception as error:  # the hub and httpx each raise their own
        raise DataError(
            f"{key}: {path}{about} is neither a local folder nor in the hub's cache, "
            f"and the hub does not give it ({type(error).__name__})",
            remedy
            or f"put the model into one of the folders of paths.models, as <folder>/{path} "
            "(on a machine with a network, `ddoq fetch` and the same arguments do that), "
            f"or set {key}=/its/folder",
        ) from error
