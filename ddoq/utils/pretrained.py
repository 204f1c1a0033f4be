"""Weights from a local folder or a hub, with errors that say where to put the files."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from ddoq.errors import ConfigError, DataError, did_you_mean
from ddoq.utils.weights import loading, read_config, read_weights, require_finite

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")
_VARIANT = re.compile(r"fp16|bf16|non_ema|flax|onnx|openvino")  # copies of the same weights that are not read

#: What the models of the shipped configurations are: size of what is read, and licence.
KNOWN = {
    "facebook/DiT-XL-2-256": "2.7 GB, CC-BY-NC 4.0: no commercial use",
    "facebook/DiT-XL-2-512": "2.7 GB, CC-BY-NC 4.0: no commercial use",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "4.3 GB, CreativeML OpenRAIL-M",
    "stabilityai/sd-vae-ft-mse": "335 MB, MIT",
    "stabilityai/sd-vae-ft-ema": "335 MB, MIT",
    "vae_taef2": "5 MB, MIT, taef2_encoder.pth and taef2_decoder.pth of github.com/madebyollin/taesd",
}


def is_hub_id(path: str) -> bool:
    """Tell whether ``path`` has the form ``owner/name`` or ``owner/name@revision`` and is no local folder."""
    return not Path(path).exists() and _HUB_ID.fullmatch(path) is not None


def locate(path: str, folders: Iterable[str | Path], holds: Callable[[Path], bool]) -> str:
    """Return the place of a model: the first of ``folder/path`` that holds it, else ``path`` as it is."""
    if Path(path).exists():
        return path
    return next((str(Path(folder) / path) for folder in folders if holds(Path(folder) / path)), path)


def part_folder(folder: str | Path, subfolder: str, marker: str) -> Path | None:
    """Return where one part of a model is: in its sub-folder or at the top; ``None`` where it is in neither."""
    return next((place for place in (Path(folder) / subfolder, Path(folder)) if (place / marker).is_file()), None)


def model_folder(path: str, subfolder: str, key: str, marker: str = "config.json") -> Path:
    """Return the local folder of one part of a model, from the hub (its cache first) where ``path`` is a hub id.

    Args:
        path: a local folder, or a hub id ``owner/name`` or ``owner/name@revision``.
        subfolder: where pipelines keep this part; it may also lie at the top.
        key: config key that errors name.
        marker: the file that tells the part is there.

    Raises:
        DataError: there is no such model, or the hub does not give it.
    """
    if folder := part_folder(path, subfolder, marker):
        return folder
    if not is_hub_id(path):
        raise DataError(
            f"{key}: no model in {path!r} (no {marker})",
            f"put {marker} and *.safetensors into {Path(path).resolve() / subfolder}, or give a hub id",
        )
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    repo, _, revision = path.partition("@")
    for name in (f"{subfolder}/{marker}", marker):
        cached = try_to_load_from_cache(repo, name, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached).parent
    files = hub_files(path, key)
    wanted = wanted_files(files, subfolder, marker)
    return part_folder(snapshot_download(repo, revision=revision or None, allow_patterns=wanted), subfolder, marker)


def wanted_files(files: set[str], subfolder: str, marker: str) -> list[str]:
    """Return the files of one part of a model on the hub: its configuration and one copy of its weights."""
    top = f"{subfolder}/{marker}" not in files
    inside = [f for f in sorted(files) if ("/" not in f if top else f.startswith(f"{subfolder}/"))]
    inside = [f for f in inside if not _VARIANT.search(f)]
    weights = [f for f in inside if f.endswith(".safetensors")] or [f for f in inside if f.endswith(".bin")]
    return weights + [f for f in inside if f.endswith((".json", ".txt"))]


def load_timm(model: str, path: str | None, key: str, num_classes: int = 0, **options):
    """Return a timm model.

    Args:
        model: timm's name.
        path: a local file of weights; ``None``: those that timm names, from the hub.
        key: config key that errors name.
        num_classes: outputs of the classifier, which have to be those of the weights; 0: without its classifier.
        options: of ``timm.create_model``.

    Raises:
        ConfigError: timm has no such model.
        DataError: the weights cannot be had or do not fit.
    """
    import timm

    config, weights, outputs = timm_config(model, key), {}, num_classes
    if path:
        found = read_weights(path, model, key)
        outputs = num_classes or len(found.get(f"{_first(config.classifier)}.weight", ()))
        # Where these are not the numbers of the file, timm drops the classifier and takes whatever else is missing
        # for granted: the network keeps random weights there.
        weights = {"state_dict": found, "num_classes": outputs}
        require_outputs(found, config.classifier, outputs, path, key)
    else:
        _require_hub(config.hf_hub_id, key)
        if num_classes not in (0, config.num_classes):
            raise _other_outputs(model, config.num_classes, num_classes, key)
    with loading(model, key):
        network = timm.create_model(
            model, pretrained=True, num_classes=outputs, pretrained_cfg_overlay=weights, **options
        )
    if outputs and not num_classes:
        network.reset_classifier(0)
    network.pretrained_cfg.pop("state_dict", None)  # a second copy of the weights
    require_finite(network, path or model, key)
    return network


def timm_config(model: str, key: str):
    """Return what timm knows about a model's published weights.

    Raises:
        ConfigError: timm has no such model.
    """
    import timm

    try:
        config = timm.get_pretrained_cfg(model)
    except RuntimeError:  # the architecture is there, these weights of it are not
        config = None
    if config is None:
        near = did_you_mean(model, timm.list_models() + timm.list_pretrained())
        raise ConfigError(f"{key.rsplit('.', 1)[0]}.model: timm has no '{model}'", near)
    return config


def require_outputs(weights: dict, classifier: str | tuple[str, ...], wanted: int, path: str, key: str) -> None:
    """Raise DataError where a file's classifier has another number of outputs than the one that is asked for."""
    name = f"{_first(classifier)}.weight"
    found = len(weights.get(name, range(wanted)))  # files with other names are for timm to convert
    if found != wanted:
        raise _other_outputs(path, found, wanted, key)


def _first(names: str | tuple[str, ...] | None) -> str | None:
    return names if names is None or isinstance(names, str) else names[0]


def _other_outputs(weights: str, found: int, wanted: int, key: str) -> DataError:
    part = key.rsplit(".", 1)[0]
    return DataError(
        f"{part}.classes: the weights of {weights} know {found} classes, not the {wanted} that are asked for",
        f"set {part}.classes to what the outputs are (imagenet or dataset), or take other weights with {key}",
    )


def _require_hub(hub_id: str | None, key: str) -> None:
    """Raise DataError at once where a timm model is neither in the local cache nor to be had from the hub."""
    from huggingface_hub import try_to_load_from_cache

    if hub_id is None:
        raise DataError(f"{key}: timm names no weights for this model", f"set {key} to a file of weights")
    if not try_to_load_from_cache(hub_id, "model.safetensors"):
        hub_files(hub_id, key, f"download model.safetensors elsewhere and set {key}=/that/model.safetensors")


def hub_files(path: str, key: str, remedy: str | None = None) -> set[str]:
    """Return the names of a model's files on the hub: one small request without retries tells if there is a network.

    Raises:
        DataError: the hub does not answer, or does not give this model: what it is, and where to put it.
    """
    from huggingface_hub import HfApi

    repo, _, revision = path.partition("@")
    about = f" ({KNOWN[repo]})" if repo in KNOWN else ""
    try:
        return {file.rfilename for file in HfApi().model_info(repo, revision=revision or None, timeout=5).siblings}
    except Exception as error:  # the hub and httpx each raise their own
        raise DataError(
            f"{key}: {path}{about} is neither a local folder nor in the hub's cache, and the hub does not give it "
            f"({type(error).__name__})",
            remedy
            or f"put the model into one of the folders of paths.models, as <folder>/{path} (on a machine with a "
            f"network, `ddoq fetch` and the same arguments do that), or set {key}=/its/folder",
        ) from error


def load_pretrained(path: str, class_names: tuple[str, ...], subfolder: str, key: str, precision: str = "float32"):
    """Load a diffusers model whose class is one of ``class_names``; weights are never unpickled.

    Args:
        path: a local folder, or a hub id.
        class_names: classes that fit.
        subfolder: where pipelines keep this kind of model.
        key: config key that errors name.
        precision: of the weights.

    Returns:
        The model, ready for inference.
    """
    import diffusers

    folder = model_folder(path, subfolder, key)
    found = read_config(folder / "config.json", key).get("_class_name")
    # Published DiT checkpoints still carry the class name from before diffusers split its transformers up.
    found = class_names[0] if found == "Transformer2DModel" else found
    if found not in class_names:
        raise ConfigError(f"{key}: {folder} holds a {found}", f"give a folder with one of: {', '.join(class_names)}")
    # A .bin, where there are no safetensors, is read by torch.load with weights_only=True.
    return for_inference(_from_folder(diffusers, found, folder, key), precision)


def _from_folder(library, name: str, folder: Path, key: str):
    """Return a model of diffusers or transformers, all of whose weights are in the folder and finite."""
    library.utils.logging.disable_progress_bar()
    library.utils.logging.set_verbosity_error()
    with loading(str(folder), key):
        model, told = getattr(library, name).from_pretrained(folder, local_files_only=True, output_loading_info=True)
    if absent := sorted(told["missing_keys"]):  # both libraries would go on with random ones
        raise DataError(
            f"{key}: {len(absent)} weights of a {name} are not in {folder}, e.g. {absent[0]}",
            "replace the folder by an undamaged one: config.json and weights of one model",
        )
    require_finite(model, str(folder), key)
    return model


def load_scheduler(path: str, name: str | None, key: str):
    """Return a model's scheduler: as it was saved, or of another class with the same noise schedule.

    Args:
        path: a local folder, or a hub id.
        name: class name in diffusers; ``None`` for the model's own. Another class takes trailing times: the others
            skip the noisiest ones, which matters where few steps are run.
        key: config key that errors name.
    """
    import diffusers

    folder = model_folder(path, "scheduler", key, "scheduler_config.json")
    saved = read_config(folder / "scheduler_config.json", key)
    name, own = name or saved.get("_class_name"), name is None
    scheduler_class = getattr(diffusers, str(name), None)
    if not (isinstance(scheduler_class, type) and issubclass(scheduler_class, diffusers.SchedulerMixin)):
        raise DataError(f"{key}: {folder} names '{name}', no scheduler", "replace scheduler_config.json by the model's")
    known = inspect.signature(scheduler_class.__init__).parameters
    changes = {"clip_sample": False}  # it would clip latents to [-1, 1]
    if not own:  # without the warm-up of PNDM, which has to start from the noisiest time
        changes |= {"timestep_spacing": "trailing", "skip_prk_steps": True}
    with loading(str(folder), key):
        return scheduler_class.from_config({**saved, **{k: v for k, v in changes.items() if k in known}})


def load_text_encoder(path: str, key: str, precision: str):
    """Return the CLIP tokenizer and text encoder of a Stable Diffusion model, ready for inference."""
    import transformers

    tokenizer = model_folder(path, "tokenizer", key, "tokenizer_config.json")
    encoder = model_folder(path, "text_encoder", key)
    with loading(str(tokenizer), key):
        words = transformers.CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True)
    return words, for_inference(_from_folder(transformers, "CLIPTextModel", encoder, key), precision)


def for_inference(model, precision: str):
    """Freeze a network, give it its precision, e.g. ``bfloat16``, and the layout in which convolutions are fastest."""
    import torch

    model.requires_grad_(False).eval()
    # not model.to: that of diffusers warns about parts it would rather keep in float32, of which these have none
    return torch.nn.Module.to(model, getattr(torch, precision), memory_format=torch.channels_last)


def compile_blocks(network) -> None:
    """Compile every transformer and residual block of a diffusers network: all of one kind share their code."""
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D

    for module in network.modules():
        if isinstance(module, BasicTransformerBlock | ResnetBlock2D):
            module.compile()
