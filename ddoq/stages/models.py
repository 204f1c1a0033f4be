"""The pretrained models of a run: where they are, what stands for them in keys, whether they fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddoq.config.checks import stated_latent_shape
from ddoq.data.base import hash_files
from ddoq.data.class_order import outputs_of_classes, read_order
from ddoq.data.label_space import LabelSpace
from ddoq.errors import ConfigError, DataError
from ddoq.pipeline.graph import Node
from ddoq.utils.pretrained import (
    KNOWN,
    hub_files,
    is_hub_id,
    locate,
    model_folder,
    part_folder,
    wanted_files,
)
from ddoq.utils.weights import check_file, hash_file, read_config

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
_OF_TRIAL = ("name", "_target_", "classes", "precision")
_WEIGHTS = (".json", ".safetensors", ".txt", ".bin", ".pth")


@dataclass(frozen=True)
class Use:
    """A model as one component uses it. ``place``: a folder, a file, a hub id; ``None``: timm knows."""

    conf: Conf
    key: str
    place: str | None

    @property
    def parts(self) -> Mapping[str, str]:
        """The parts that the component reads."""
        return PARTS.get(self.conf["_target_"], {})


class Models:
    """Finds models in the folders of ``paths.models`` and remembers them by what stands for them in keys.

    A hub id stands for itself, wherever its files lie; a folder for its content.
    """

    def __init__(self, folders: str | list[str]):
        self.folders = [folders] if isinstance(folders, str) else list(folders)
        self._uses: dict[tuple[str, str], Use] = {}  # one model may serve as encoder and as generator
        self._identities: dict[tuple[str, str], str] = {}  # every image of every arm asks; files are hashed once

    def identify(self, conf: Conf, key: str) -> str | None:
        """Return what stands for a component's weights in a content key; ``None`` where ddoq fits them itself.

        Args:
            conf: of an encoder, a generator, a feature space or a teacher.
            key: config key of its path.

        Raises:
            DataError: a local path without the model's files.
        """
        if conf["path"] is None and "model" not in conf:
            return None
        asked = conf["_target_"], conf["path"] or conf["model"]
        if asked not in self._identities:
            identity, place = self._identity_and_place(conf, key)
            self._identities[asked], self._uses[identity, conf["_target_"]] = identity, Use(conf, key, place)
        return self._identities[asked]

    def _identity_and_place(self, conf: Conf, key: str) -> tuple[str, str | None]:
        path = conf["path"]
        if conf["_target_"] not in PARTS:  # one file of weights, or those that timm names
            if path is None:
                return f"hub:{conf['model']}", None
            place = locate(path, self.folders, Path.is_file)
            return hash_file(place, key), place
        place = self.locate(conf)
        return f"hub:{path}" if is_hub_id(path) else _content(conf, place, key, self.folders), place

    def locate(self, conf: Conf) -> str:
        """Return the folder of ``paths.models`` that has all that a component reads, else its path as it is."""
        parts = PARTS[conf["_target_"]].items()

        def holds(folder: Path) -> bool:
            return all(part_folder(folder, part, marker) for part, marker in parts)

        return locate(conf["path"], self.folders, holds)

    def place(self, identity: str, conf: Conf) -> str | None:
        """Return the folder, file or hub id behind an identity, for the component of a configuration."""
        return self._uses[identity, conf["_target_"]].place

    def key(self, identity: str, conf: Conf) -> str:
        """Return where in the configuration the path of a component's weights stands."""
        return self._uses[identity, conf["_target_"]].key

    def require(self, nodes: list[Node]) -> None:
        """Raise DataError where a node that has to be computed needs a model that is neither here nor to be had, or
        one whose files are cut off.
        """
        needed = {node.identity.get(name) for node in nodes for name in ("weights", "model")}
        for (identity, _), use in self._uses.items():
            if identity not in needed:
                continue
            for part, marker in use.parts.items():
                for file in model_folder(use.place, part, use.key, marker).glob("*.safetensors"):
                    check_file(file, use.key)
            if use.place and not use.parts:
                check_file(Path(use.place), use.key)

    def fetch(self, log: Callable[[str], None]) -> None:
        """Download what is missing into the first folder of ``paths.models``; ``log`` takes a line per model."""
        from huggingface_hub import snapshot_download

        for use in self._uses.values():
            if use.place is None or not is_hub_id(use.place):
                log(f"{use.key}: {use.place or use.conf['model']}: {'here' if use.place else 'timm fetches it'}")
                continue
            repo, _, revision = use.place.partition("@")
            log(f"{use.key}: {use.place} ({KNOWN.get(repo, 'licence: see the hub')})")
            files = hub_files(use.place, use.key)
            wanted = [name for part, marker in use.parts.items() for name in wanted_files(files, part, marker)]
            target = Path(self.folders[0]) / use.place
            snapshot_download(repo, revision=revision or None, allow_patterns=wanted, local_dir=target)


def generator_identity(conf: Conf, models: Models, of_trial: bool = False) -> dict[str, Any]:
    """Return what a generator contributes to a key: its weights and order of classes, by content.

    Args:
        conf: of a generator.
        models: finds its weights.
        of_trial: leave out how it generates.
    """
    kept = {name: value for name, value in conf.items() if name not in ("fit", "path", "order")}
    if of_trial:
        kept = {name: value for name, value in kept.items() if name in _OF_TRIAL}
    if conf.get("order") is not None:
        kept["order"] = read_order(conf["order"], "generator.order")
    return {"generator": kept, "model": models.identify(conf, "generator.path") if "path" in conf else None}


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
    generator, shape, known = config["generator"], latent_shape(config, models), _known(config, models)
    if known is None or shape is None:
        return
    channels = _number(known, "in_channels", "generator")
    side = _number(known, "sample_size", "generator") if known.get("sample_size") and _is_dit(known) else None
    if channels != shape[0] or (side is not None and side != shape[1]):
        wanted = f"{channels} channels" + (f" of {side}×{side}" if side else "")
        size = config["dataset"]["image_size"]
        raise ConfigError(
            f"generator.path: {generator['path']} takes latents with {wanted}, encoder={config['encoder']['name']} "
            f"makes {shape[0]} channels of {shape[1]}×{shape[1]} from {size} pixels",
            f"set dataset.image_size={size * side // shape[1]}"
            if channels == shape[0]
            else "use the encoder that the generator was trained with",
        )


def check_classes(config: Conf, models: Models, facts: Conf) -> None:
    """Raise ConfigError where a generator that is already here cannot know the data set's classes.

    Args:
        config: resolved.
        models: finds the generator.
        facts: of the ``index`` artefact.
    """
    known = _known(config, models)
    if known is not None and _is_dit(known):
        generator = config["generator"]
        space, num = LabelSpace.from_facts(facts), _number(known, "num_embeds_ada_norm", "generator")
        if generator.get("order") is None:
            space.class_numbers(generator["classes"], num, generator["path"])
        else:
            outputs_of_classes(read_order(generator["order"], "generator.order"), space, num, "generator.order")


def _known(config: Conf, models: Models) -> Conf | None:
    """Return what ``config.json`` of the generator's network says, if it is here."""
    generator = config["generator"]
    place = models.locate(generator) if generator.get("path") else None
    if place is None or is_hub_id(place):
        return None
    folder = model_folder(place, next(iter(PARTS[generator["_target_"]])), "generator.path")
    return read_config(folder / "config.json", "generator.path")


def _is_dit(known: Conf) -> bool:
    return "num_embeds_ada_norm" in known


def _number(known: Conf, name: str, part: str) -> int:
    """Return a number that a model's ``config.json`` has to state."""
    if type(known.get(name)) is not int or known[name] <= 0:
        raise DataError(
            f"{part}.path: config.json of the {part} says {name}={known.get(name)!r}, which is no positive number",
            "replace it by the model's own",
        )
    return known[name]


def latent_shape(config: Conf, models: Models) -> tuple[int, int] | None:
    """Return channels and side of the latents, as far as the configuration and local files tell."""
    if shape := stated_latent_shape(config):
        return shape
    place = models.locate(config["encoder"])
    if is_hub_id(place):
        return None
    known = read_config(model_folder(place, "vae", "encoder.path") / "config.json", "encoder.path")
    blocks = known.get("encoder_block_out_channels") or known.get("block_out_channels")
    if not isinstance(blocks, list):
        raise DataError(
            f"encoder.path: config.json of the encoder says block_out_channels={blocks!r}, which is no list",
            "replace it by the model's own",
        )
    side = config["dataset"]["image_size"] // 2 ** (len(blocks) - 1)
    return _number(known, "latent_channels", "encoder"), side


def networks_of(config: Conf) -> Iterator[tuple[Conf, str]]:
    """Return every component of a configuration that may have pretrained weights, with the key of its path."""
    for part in ("encoder", "generator"):
        if "path" in config[part]:
            yield config[part], f"{part}.path"
    if config["space"]["name"] == "features":
        yield config["space"], "space.path"
    taught = config["protocol"]["labels"] != "hard" or config["compare"]["labels"]
    if taught or config["measure"]["fidelity"] or config["space"]["name"] == "teacher":
        for teacher in (config["teacher"].get("members") or {"": config["teacher"]}).values():
            if "path" in teacher:
                yield teacher, "teacher.path"
