"""Whether the pretrained models of a run fit the data and one another:
judged from what they say of themselves.

Everything here reads ``config.json`` and its like, before anything is computed. Models that are
still on the hub are judged once they have been downloaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ddoq.config.checks import stated_latent_shape
from ddoq.config.form import complain
from ddoq.config.guidances import guided_arms
from ddoq.config.parts import components
from ddoq.data.class_order import outputs_of_classes, read_order
from ddoq.data.label_space import LabelSpace
from ddoq.errors import DataError
from ddoq.experiment import Models
from ddoq.experiment.schedules import schedule_problems
from ddoq.experiment.teachers import seen_test_images
from ddoq.utils.scaling import VAE_SCALES, latent_scale
from ddoq.utils.schedulers import SCALING
from ddoq.utils.weights import require_class

Conf = Mapping[str, Any]
Problems = Iterator[tuple[str, str]]


def check_fit(config: Conf, models: Models) -> None:
    """Raise DdoqError where a pretrained model cannot serve the data,
    or was trained on another one's latents.

    Args:
        config: resolved and checked.
        models: finds them; what is not on this machine passes.
    """
    networks = [(key, conf, _network(conf, key, models)) for key, conf in _generators(config)]
    networks = [(key, conf, network) for key, conf, network in networks if network is not None]
    complain(_size_problems(config, models, networks))
    shape = latent_shape(config, models)
    for key, conf, network in networks:
        complain(_network_problems(config, key, conf, network, shape))
        if not _is_dit(network):
            complain(_text_problems(models.describe(conf, "text_encoder", key), network, key))
        if saved := models.describe(conf, "scheduler", key):
            complain(schedule_problems(saved, conf, key, _learns_variance(network)))
    complain(_guided_problems(config, models))


def check_classes(config: Conf, models: Models, facts: Conf) -> None:
    """Raise ConfigError where a generator that is already here cannot know the data set's classes.

    Args:
        config: resolved.
        models: finds the generator.
        facts: of the ``index`` artefact.
    """
    for key, generator in _generators(config):
        network = _network(generator, key, models)
        if network is not None and _is_dit(network):
            num = _number({"num_embeds_ada_norm": 1000, **network}, "num_embeds_ada_norm", key)
            space = LabelSpace.from_facts(facts)
            if generator.get("order") is None:
                space.class_numbers(generator["classes"], num, generator["path"])
            else:
                outputs_of_classes(
                    read_order(generator["order"], "generator.order"), space, num, "generator.order"
                )


#: Data sets of the user's own, for which no experiment has chosen a short way.
_OWN_DATA = ("image_folder", "parquet")


def _fits(config: Conf) -> Iterator[str]:
    """Yield which models are fitted to the data before anything else."""
    for group, what in (("encoder", "a VAE"), ("generator", "a DiT")):
        part = config[group]
        if part.get("fit") and part["path"] is None:
            yield f"{what} ({part['fit']['num_steps']:,} steps)"


def remarks(config: Conf, models: Models) -> Iterator[str]:
    """Yield what a user has to know about models, for the plan: what is fitted, and what is taken
    for granted.
    """
    fits = " and ".join(_fits(config))
    if fits and config["dataset"]["name"] in _OWN_DATA:
        yield (
            f"fitted to the data first: {fits}, tens of minutes on a CPU; "
            "+experiment=photos takes the photos themselves, in minutes"
        )
    vae = _encoder(config, models) or {}
    if vae and latent_scale(vae, "encoder.path").assumed:
        name = vae["_class_name"]
        yield (
            "encoder.path: config.json states no scaling_factor: "
            f"an {name}'s is taken, {VAE_SCALES[name]}"
        )
    is_taef2 = config["encoder"]["_target_"].endswith("TAEF2")
    if config["dataset"]["channels"] < vae.get("in_channels", 3 if is_taef2 else 1):
        yield (
            "encoder.path: grey images are encoded as RGB; "
            "what is decoded is made grey again (ITU-R 601 luma)"
        )
    if seen := seen_test_images(config):
        yield seen


def latent_shape(config: Conf, models: Models) -> tuple[int, int] | None:
    """Return channels and side of the latents, as far as the configuration and local files tell."""
    if shape := stated_latent_shape(config):
        return shape
    vae = _encoder(config, models)
    if vae is None:
        return None
    return _number(vae, "latent_channels", "encoder.path"), config["dataset"][
        "image_size"
    ] // _factor(vae)


def _generators(config: Conf) -> Iterator[tuple[str, Conf]]:
    """Yield every generator with pretrained weights, those of arms included,
    with the key of its path.
    """
    for path, group, part in components(config):
        if group == "generator" and part.get("path"):
            yield f"{path}.path", part


def _network(generator: Conf, key: str, models: Models) -> Conf | None:
    """Return what a generator's network says of itself, if it is here,
    once its class is known to fit.
    """
    is_dit = generator["_target_"].endswith("DiT")
    part, name = (
        ("transformer", "DiTTransformer2DModel") if is_dit else ("unet", "UNet2DConditionModel")
    )
    network = models.describe(generator, part, key)
    if network is None:
        return None
    return {**network, "_class_name": require_class(network, (name,), generator["path"], key)}


def _encoder(config: Conf, models: Models) -> Conf | None:
    """Return what a pretrained VAE says of itself, if it is here,
    once it is known to be one that can be used.
    """
    encoder, key = config["encoder"], "encoder.path"
    if not encoder["_target_"].endswith("VAE") or encoder["path"] is None:
        return None
    vae = models.describe(encoder, "vae", key)
    if vae is not None:
        vae = {
            **vae,
            "_class_name": require_class(vae, tuple(VAE_SCALES), encoder["path"], key),
        }
        latent_scale(vae, key)
        vae = {"in_channels": 3, "out_channels": 3, "latent_channels": 4, **vae}
        for name in ("in_channels", "out_channels", "latent_channels"):
            _number(vae, name, key)
        complain(_channel_problems(config, vae, key))
    return vae


def _channel_problems(config: Conf, vae: Conf, key: str) -> Problems:
    """Yield what speaks against the channels of a VAE's images."""
    taken = vae["in_channels"]
    made = vae["out_channels"]
    channels = config["dataset"]["channels"]
    if taken not in (1, 3) or made != taken:
        yield (
            f"{key}: the encoder takes images of {taken} channels and makes such of {made}",
            "use a VAE of RGB or grey images: in_channels and out_channels both 3, or both 1",
        )
    elif taken < channels:
        yield (
            f"dataset.channels: {channels}, "
            f"and the encoder takes grey images ({key}: in_channels=1)",
            "set dataset.channels=1, or use a VAE of RGB images",
        )


def _guided_problems(config: Conf, models: Models) -> Problems:
    """Yield the schedulers under which guidances would take samples for something else."""
    for path, arm in guided_arms(config):
        generator, key = arm["generator"], f"{path}generator"
        saved = models.describe(generator, "scheduler", f"{key}.path") if generator["path"] else {}
        name = generator["scheduler"] or (saved or {}).get("_class_name")
        if name in SCALING:
            yield (
                f"{key}.scheduler: {name} scales its samples, which guidances do not support",
                f"set {key}.scheduler=DDIMScheduler",
            )


# --- sizes ------------------------------------------------------------------------------------


def _size_problems(
    config: Conf, models: Models, networks: list[tuple[str, Conf, Conf]]
) -> Problems:
    """Yield where the encoder or the transformers do not suit the image size,
    with the nearest sizes that do.
    """
    size, vae = config["dataset"]["image_size"], _encoder(config, models)
    shape = stated_latent_shape(config)
    if vae is None and shape is None:
        return
    factor = _factor(vae) if vae is not None else size // shape[1]
    transformers = [
        (key, *_patch_and_side(network, key)) for key, _, network in networks if _is_dit(network)
    ]
    fit = config["generator"].get("fit")
    if fit and config["generator"]["path"] is None:
        transformers.append(("generator.fit.patch_size", fit["patch_size"], None))
    unit = factor * math.lcm(*(patch for _, patch, _ in transformers))
    own = next((side * factor for _, _, side in transformers if side), None)
    remedy = f"set dataset.image_size to {own or _nearest(size, unit)}"
    if size % factor:
        cause = (
            f"dataset.image_size: {size} is no multiple of {factor}, "
            "by which the encoder makes images smaller"
        )
        yield cause, remedy
        return
    side = size // factor
    made = f"encoder={config['encoder']['name']} makes {side}×{side} from {size} pixels"
    for key, patch, taken in transformers:
        if taken not in (None, side):
            yield f"{key}: the model takes latents of {taken}×{taken}, {made}", remedy
        elif side % patch:
            yield (
                f"{key}: the model cuts latents into squares of {patch}×{patch}, and {made}",
                remedy,
            )


def _nearest(size: int, unit: int) -> str:
    """Return the multiples of a number that are next to a size, both if there are two."""
    below = size // unit * unit
    return f"{below} or {below + unit}" if below else str(unit)


def _factor(vae: Conf) -> int:
    """Return how many pixels of a side a VAE makes one latent of."""
    blocks = vae.get("encoder_block_out_channels") or vae.get("block_out_channels")
    decoder = vae.get("decoder_block_out_channels") or blocks
    if not isinstance(blocks, list) or not blocks or not isinstance(decoder, list):
        raise DataError(
            f"encoder.path: config.json of the encoder says block_out_channels={blocks!r}, "
            "which is no list",
            "replace it by the model's own",
        )
    if len(blocks) != len(decoder) or vae.get("upsampling_scaling_factor", 2) != 2:
        raise DataError(
            f"encoder.path: the encoder halves images {len(blocks) - 1} times "
            "and its decoder does not double them as often",
            "use a VAE that decodes to the size that it encodes",
        )
    return 2 ** (len(blocks) - 1)


def _patch_and_side(transformer: Conf, key: str) -> tuple[int, int]:
    """Return the side of a transformer's patches, and that of its latents: it takes no other."""
    transformer = {"patch_size": 2, "sample_size": 32, **transformer}
    patch, side = _number(transformer, "patch_size", key), _number(transformer, "sample_size", key)
    if side % patch:
        raise DataError(
            f"{key}: config.json says patch_size={patch} and sample_size={side}, "
            "which it does not divide",
            "replace it by the model's own",
        )
    return patch, side


# --- channels ---------------------------------------------------------------------------------


def _network_problems(
    config: Conf, key: str, conf: Conf, network: Conf, shape: tuple[int, int] | None
) -> Problems:
    """Yield what speaks against a generator's network:
    its channels, and conditions that are not given to it.
    """
    taken = _number({"in_channels": 4, **network}, "in_channels", key)
    made = network.get("out_channels", None if _is_dit(network) else 4)
    if made not in (None, taken, 2 * taken) or (made == 2 * taken and not _is_dit(network)):
        yield (
            f"{key}: {conf['path']} takes latents of {taken} channels and predicts {made}",
            "use a model that predicts as many as it takes"
            + (" (not one for inpainting)" if taken > 4 else ""),
        )
    elif shape is not None and taken != shape[0]:
        yield (
            f"{key}: {conf['path']} takes latents of {taken} channels, "
            f"encoder={config['encoder']['name']} makes {shape[0]}",
            "use the encoder that the generator was trained with",
        )
    guided = conf.get("guidance_channels")
    if guided is not None and guided > taken:
        yield (
            f"{key.removesuffix('path')}guidance_channels: {guided}, and the model has {taken}",
            f"set {key.removesuffix('path')}guidance_channels to at most {taken}, or null",
        )


def _text_problems(text: Conf | None, unet: Conf, key: str) -> Problems:
    """Yield what speaks against a U-Net's text encoder, and conditions besides its text."""
    others = [
        name
        for name in ("addition_embed_type", "class_embed_type", "num_class_embeds")
        if unet.get(name)
    ]
    if others:
        what = (
            "more than one text embedding (Stable Diffusion XL)"
            if others[0].startswith("add")
            else "class numbers"
        )
        yield (
            f"{key}: its U-Net needs {what} ({others[0]})",
            "use a Stable Diffusion 1.x or 2.x model",
        )
    width, wanted = (text or {}).get("hidden_size"), unet.get("cross_attention_dim")
    if isinstance(width, int) and isinstance(wanted, int) and width != wanted:
        yield (
            f"{key}: the text encoder makes embeddings of {width} numbers, "
            f"the U-Net takes {wanted}",
            "use unet and text_encoder of one model",
        )


def _learns_variance(network: Conf) -> bool:
    return network.get("out_channels") == 2 * network.get("in_channels", 4)


def _is_dit(network: Conf) -> bool:
    return network["_class_name"] == "DiTTransformer2DModel"


def _number(model_config: Conf, name: str, key: str) -> int:
    """Return a number that a model's ``config.json`` has to state."""
    if type(model_config.get(name)) is not int or model_config[name] <= 0:
        raise DataError(
            f"{key}: config.json says {name}={model_config.get(name)!r}, "
            "which is no positive number",
            "replace it by the model's own",
        )
    return model_config[name]
