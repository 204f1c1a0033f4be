"""Networks with the weights of a folder, a file or the hub, and their schedulers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
from torch import Tensor, nn

from ddoq.errors import ConfigError, DataError, did_you_mean
from ddoq.utils.hub import hub_files, model_folder
from ddoq.utils.state_dicts import read_weights, require_finite
from ddoq.utils.weights import HALF, WEIGHTS, loading, read_model_config, require_class, variant_of

_SCHEDULER = "scheduler_config.json"
_EFFICIENTNET_PYTORCH = "_conv_stem.weight"  # a name that only its files have


def load_timm(model: str, path: str | None, key: str, num_classes: int = 0, **options):
    """Return a timm model.

    Args:
        model: timm's name.
        path: a local file of weights; ``None``: those that timm names, from the hub.
        key: config key that errors name.
        num_classes: outputs of the classifier, which have to be those of the weights;
            0: without its classifier.
        options: of ``timm.create_model``.

    Raises:
        ConfigError: timm has no such model.
        DataError: the weights cannot be had or do not fit.
    """
    import timm

    config, weights, outputs = timm_config(model, key), {}, num_classes
    if path:
        stored = read_weights(path, model, key)
        if _EFFICIENTNET_PYTORCH in stored:  # the same layers under other names
            stored = _in_order(stored, timm.create_model(model), model, path, key)
        outputs = num_classes or len(stored.get(f"{_first(config.classifier)}.weight", ()))
        # Where these are not the numbers of the file, timm drops the classifier and takes whatever
        # else is missing for granted: the network keeps random weights there.
        weights = {"state_dict": stored, "num_classes": outputs}
        require_outputs(stored, config.classifier, outputs, path, key)
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


def _in_order(
    stored: dict[str, Tensor], network: nn.Module, model: str, path: str, key: str
) -> dict[str, Tensor]:
    """Return weights under the names of a network that has the same layers in the same order.

    Raises:
        DataError: they are those of another network.
    """
    stored, own = (
        {name: w for name, w in weights.items() if not name.endswith("num_batches_tracked")}
        for weights in (stored, network.state_dict())
    )
    shapes = [[tensor.shape for tensor in weights.values()] for weights in (stored, own)]
    if shapes[0] != shapes[1]:
        part = key.rsplit(".", 1)[0]
        raise DataError(
            f"{key}: {path} holds another EfficientNet than {part}.model={model}",
            f"set {part}.model to the one it is, e.g. tf_efficientnet_lite0",
        )
    return dict(zip(own, stored.values(), strict=True))


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


def require_outputs(
    weights: dict, classifier: str | tuple[str, ...], wanted: int, path: str, key: str
) -> None:
    """Raise DataError where a file's classifier has another number of outputs than the one
    that is asked for.
    """
    name = f"{_first(classifier)}.weight"
    num_outputs = len(
        weights.get(name, range(wanted))
    )  # files with other names are for timm to convert
    if num_outputs != wanted:
        raise _other_outputs(path, num_outputs, wanted, key)


def _first(names: str | tuple[str, ...] | None) -> str | None:
    return names if names is None or isinstance(names, str) else names[0]


def _other_outputs(weights: str, num_outputs: int, wanted: int, key: str) -> DataError:
    part = key.rsplit(".", 1)[0]
    return DataError(
        f"{part}.classes: the weights of {weights} know {num_outputs} classes, "
        f"not the {wanted} that are asked for",
        f"set {part}.classes to what the outputs are (imagenet or dataset), "
        f"or take other weights with {key}",
    )


def _require_hub(hub_id: str | None, key: str) -> None:
    """Raise DataError at once where a timm model is neither in the local cache nor
    to be had from the hub.
    """
    if hub_id is None:
        raise DataError(
            f"{key}: timm names no weights for this model", f"set {key} to a file of weights"
        )
    if not huggingface_hub.try_to_load_from_cache(hub_id, "model.safetensors"):
        hub_files(
            hub_id,
            key,
            f"download model.safetensors elsewhere and set {key}=/that/model.safetensors",
        )


def load_pretrained(
    path: str, class_names: tuple[str, ...], subfolder: str, key: str, precision: str = "float32"
):
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
    name = require_class(read_model_config(folder / "config.json", key), class_names, folder, key)
    if Path(path).is_file():
        return for_inference(_from_file(getattr(diffusers, name), path, folder, key), precision)
    # A .bin, where there are no safetensors, is read by torch.load with weights_only=True.
    variant = {"variant": HALF} if variant_of(folder, key) else {}
    return for_inference(_from_folder(diffusers, name, folder, key, **variant), precision)


def _from_file(model_class, path: str, folder: Path, key: str):
    """Return a model of diffusers from one file, in its names or in those of CompVis,
    beside its configuration.
    """
    with loading(path, key):
        model = model_class.from_single_file(
            read_weights(path, path, key), config=str(folder), local_files_only=True
        )
    require_finite(model, path, key)
    return model


def _from_folder(library, name: str, folder: Path, key: str, **options):
    """Return a model of diffusers or transformers,
    all of whose weights are in the folder and finite.
    """
    library.utils.logging.disable_progress_bar()
    library.utils.logging.set_verbosity_error()
    with loading(str(folder), key):
        model, told = getattr(library, name).from_pretrained(
            folder, local_files_only=True, output_loading_info=True, **options
        )
    absent, others = sorted(told["missing_keys"]), sorted(told["unexpected_keys"])
    if absent:  # both libraries would go on with random ones
        raise DataError(
            f"{key}: {len(absent)} weights of a {name} are not in {folder}, e.g. {absent[0]}",
            _renamed(folder, absent[0], others)
            or "replace the folder by an undamaged one: config.json and weights of one model",
        )
    require_finite(model, str(folder), key)
    return model


def _renamed(folder: Path, wanted: str, others: list[str]) -> str | None:
    """Return the command that takes off what a wrapper has put before every name;
    ``None`` where none has.
    """
    prefix = next(
        (name.removesuffix(wanted) for name in others if name.endswith(f".{wanted}")), None
    )
    file = folder / f"{WEIGHTS}.safetensors"
    if prefix is None or not file.is_file():
        return None
    script = (
        "from safetensors.torch import load_file, save_file; "
        f"f = '{file}'; "
        f"save_file({{k.removeprefix('{prefix}'): v for k, v in load_file(f).items()}}, "
        "f, metadata={'format': 'pt'})"
    )
    return f'its names begin with "{prefix}"; take that off: python -c "{script}"'


def read_scheduler(path: str, key: str) -> dict[str, Any]:
    """Return what a model's ``scheduler_config.json`` says;
    ``path``: a local folder, or a hub id.
    """
    return read_model_config(model_folder(path, "scheduler", key, _SCHEDULER) / _SCHEDULER, key)


def load_scheduler(saved: Mapping[str, Any], name: str | None, key: str):
    """Return a model's scheduler: as it was saved,
    or of another class with the same noise schedule.

    Args:
        saved: its ``scheduler_config.json``.
        name: class name in diffusers; ``None`` for the model's own. Another class takes trailing
            times: the others skip the noisiest ones, which matters where few steps are run.
        key: config key that errors name.
    """
    import diffusers

    name, own = name or saved.get("_class_name"), name is None
    scheduler_class = getattr(diffusers, str(name), None)
    if not (
        isinstance(scheduler_class, type) and issubclass(scheduler_class, diffusers.SchedulerMixin)
    ):
        raise DataError(
            f"{key}: {_SCHEDULER} names '{name}', no scheduler",
            f"replace {_SCHEDULER} by the model's",
        )
    parameters = inspect.signature(scheduler_class.__init__).parameters
    changes = {"clip_sample": False}  # it would clip latents to [-1, 1]
    if not own:  # without the warm-up of PNDM, which has to start from the noisiest time
        changes |= {"timestep_spacing": "trailing", "skip_prk_steps": True}
    # A class that has no use for a learned variance would carry the word on,
    # and be given the variance.
    kept = {k: v for k, v in saved.items() if k in parameters or k != "variance_type"}
    with loading(f"a {name}", key):
        return scheduler_class.from_config(
            {**kept, **{k: v for k, v in changes.items() if k in parameters}}
        )


def load_text_encoder(path: str, key: str, precision: str):
    """Return the CLIP tokenizer and text encoder of a Stable Diffusion model,
    ready for inference.
    """
    import transformers

    tokenizer = model_folder(path, "tokenizer", key, "tokenizer_config.json")
    encoder = model_folder(path, "text_encoder", key)
    with loading(str(tokenizer), key):
        words = transformers.CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True)
    variant = {"variant": HALF} if not any(encoder.glob("*model.[sb]*")) else {}
    return words, for_inference(
        _from_folder(transformers, "CLIPTextModel", encoder, key, **variant), precision
    )


def for_inference(model, precision: str):
    """Freeze a network, give it its precision, e.g. ``bfloat16``,
    and the layout in which convolutions are fastest.
    """
    import torch

    model.requires_grad_(False).eval()
    # not model.to: that of diffusers warns about parts it would rather keep in float32,
    # of which these have none
    return torch.nn.Module.to(model, getattr(torch, precision), memory_format=torch.channels_last)


def compile_blocks(network) -> None:
    """Compile every transformer and residual block of a diffusers network:
    all of one kind share their code.
    """
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D

    for module in network.modules():
        if isinstance(module, BasicTransformerBlock | ResnetBlock2D):
            module.compile()
