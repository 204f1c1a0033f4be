"""The pretrained models of a run: where they are, what stands for them in keys, whether they fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ddoq.data.base import hash_files
from ddoq.errors import ConfigError, DataError
from ddoq.pipeline.graph import Node
from ddoq.utils.io import read_json
from ddoq.utils.pretrained import KNOWN, hash_file, hub_files, is_hub_id, locate, model_folder, wanted_files

Conf = Mapping[str, Any]

#: The parts of a model's folder that each component reads, with the file that tells that a part is there.
PARTS = {
    "ddoq.encoders.VAE": {"vae": "config.json"},
    "ddoq.encoders.TAEF2": {"": "taef2_encoder.pth"},
    "ddoq.generators.DiT": {"transformer": "config.json", "scheduler": "scheduler_config.json"},
    "ddoq.generators.StableDiffusion": {
        "unet": "config.json",
        "scheduler": "scheduler_config.json",
        "text_encoder": "config.json",
        "tokenizer": "tokenizer_config.json",
    },
}
_WEIGHTS = (".json", ".safetensors", ".txt", ".bin", ".pth")


class Models:
    """Finds models in the folders of ``paths.models`` and remembers them by what stands for them in keys.

    A hub id stands for itself, wherever its files lie; a folder for its content.
    """

    def __init__(self, folders: str | list[str]):
        self.folders = [folders] if isinstance(folders, str) else list(folders)
        self._found: dict[str, tuple[Conf, str, str | None]] = {}  # identity: configuration, key, place

    def identify(self, conf: Conf, key: str) -> str | None:
        """Return what stands for a component's weights in a content key; ``None`` where ddoq fits them itself.

        Args:
            conf: of an encoder, a generator or a feature space.
            key: config key of its path.

        Raises:
            DataError: a local path without the model's files.
        """
        path = conf["path"]
        if "model" in conf:  # of timm
            identity, place = (f"hub:{conf['model']}", None) if path is None else (hash_file(path, key), path)
        elif path is None:
            return None
        else:
            place = locate(path, self.folders)
            identity = f"hub:{path}" if is_hub_id(path) else _content(conf, place, key, self.folders)
        self._found[identity] = conf, key, place
        return identity

    def place(self, identity: str) -> str | None:
        """Return the folder, file or hub id behind an identity."""
        return self._found[identity][2]

    def require(self, nodes: list[Node]) -> None:
        """Raise DataError where a node that has to be computed needs a model that is neither here nor to be had."""
        for identity in {node.identity.get(name) for node in nodes for name in ("weights", "model")} - {None}:
            conf, key, place = self._found[identity]
            for part, marker in PARTS.get(conf["_target_"], {}).items():
                model_folder(place, part, key, marker)

    def fetch(self, log) -> None:
        """Download what is missing into the first folder of ``paths.models``; ``log`` takes a line per model."""
        from huggingface_hub import snapshot_download

        for conf, key, place in self._found.values():
            if place is None or not is_hub_id(place):
                log(f"{key}: {place or conf['model']}" + (": here" if place else ": timm downloads it when it runs"))
                continue
            repo, _, revision = place.partition("@")
            log(f"{key}: {place} ({KNOWN.get(repo, 'licence: see the hub')})")
            files = hub_files(place, key)
            wanted = [
                name for part, marker in PARTS[conf["_target_"]].items() for name in wanted_files(files, part, marker)
            ]
            target = Path(self.folders[0]) / place
            snapshot_download(repo, revision=revision or None, allow_patterns=wanted, local_dir=target)


def _content(conf: Conf, place: str, key: str, folders: list[str]) -> str:
    """Return a hash of the files that a component reads."""
    files: list[Path] = []
    for part, marker in PARTS[conf["_target_"]].items():
        if conf["path"] in KNOWN and not Path(place).is_dir():
            raise DataError(
                f"{key}: {conf['path']} is in none of {', '.join(folders)}",
                f"put it there ({KNOWN[conf['path']]}), or set {key}=/its/folder",
            )
        folder = model_folder(place, part, key, marker)
        files += [file for file in folder.iterdir() if file.suffix in _WEIGHTS]
    return hash_files(set(files), Path(place))


def check_fit(config: Conf, models: Models) -> None:
    """Raise ConfigError where the generator was trained on latents of another shape than the encoder's.

    Looks at ``config.json`` of models that are already here; the others are checked when they have been loaded.
    """
    generator = config["generator"]
    place = locate(generator["path"], models.folders) if generator.get("path") else None
    shape = latent_shape(config, models.folders)
    if place is None or shape is None or is_hub_id(place):
        return
    part = next(iter(PARTS[generator["_target_"]]))
    known = read_json(model_folder(place, part, "generator.path") / "config.json")
    channels, side = known["in_channels"], known.get("sample_size") if part == "transformer" else None
    if channels != shape[0] or (side is not None and side != shape[1]):
        wanted = f"{channels} channels" + (f" of {side}×{side}" if side else "")
        remedy = f"set dataset.image_size={config['dataset']['image_size'] * side // shape[1]}" if side else ""
        raise ConfigError(
            f"generator.path: {generator['path']} takes latents with {wanted}, encoder={config['encoder']['name']} "
            f"makes {shape[0]} channels of {shape[1]}×{shape[1]} from {config['dataset']['image_size']} pixels",
            remedy if channels == shape[0] else "use the encoder that the generator was trained with",
        )


def latent_shape(config: Conf, folders: list[str]) -> tuple[int, int] | None:
    """Return channels and side of the latents, as far as the configuration and local files tell."""
    encoder, size = config["encoder"], config["dataset"]["image_size"]
    if encoder["_target_"] == "ddoq.encoders.Pixels":
        return config["dataset"]["channels"], size
    if encoder["_target_"] == "ddoq.encoders.TAEF2":
        return 32, size // 8
    if encoder["path"] is None:
        return encoder["fit"]["latent_channels"], size // 2 ** (len(encoder["fit"]["block_out_channels"]) - 1)
    place = locate(encoder["path"], folders)
    if is_hub_id(place):
        return None
    known = read_json(model_folder(place, "vae", "encoder.path") / "config.json")
    blocks = known.get("encoder_block_out_channels") or known["block_out_channels"]
    return known["latent_channels"], size // 2 ** (len(blocks) - 1)


def networks_of(config: Conf) -> Iterator[tuple[Conf, str]]:
    """Return every component of a configuration that may have pretrained weights, with the key of its path."""
    for part in ("encoder", "generator"):
        if "path" in config[part]:
            yield config[part], f"{part}.path"
    if config["space"]["name"] == "features":
        yield config["space"], "space.path"
