"""The pretrained models of a run: where they are, what they say of themselves,
what stands for them in keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub

from ddoq.config.arms import TEACHER_FEATURES, selects
from ddoq.config.guidances import need_teacher
from ddoq.config.parts import components
from ddoq.config.settings import measure_of
from ddoq.data.base import hash_files
from ddoq.data.class_order import read_order
from ddoq.errors import DataError
from ddoq.pipeline.graph import Node
from ddoq.utils.digests import Digests
from ddoq.utils.hub import (
    KNOWN,
    hub_files,
    is_hub_id,
    local_part,
    locate,
    model_folder,
    part_folder,
    wanted_files,
)
from ddoq.utils.scaling import is_normalised
from ddoq.utils.weights import check_file, hash_file, read_model_config, variant_of

Conf = Mapping[str, Any]

#: The parts of a model's folder that each component reads,
#: with the file that tells that a part is there.
MODEL_PARTS = {
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
#: Components that may be given as one file:
#: a VAE beside its config.json, a DiT as its authors release it.
_FILES = ("ddoq.encoders.VAE", "ddoq.generators.DiT")
#: Stands in keys beside a VAE whose latents are scaled channel by channel, which ddoq once ignored.
_NORMALISED = "+latents_mean,latents_std"


@dataclass(frozen=True)
class Use:
    """A model as one component uses it.

    ``place``: a folder, a file, a hub id; ``None``: timm knows.
    """

    conf: Conf
    key: str
    place: str | None

    @property
    def parts(self) -> Mapping[str, str]:
        """The parts that the component reads."""
        return MODEL_PARTS.get(self.conf["_target_"], {})


class Models:
    """Finds models in the folders of ``paths.models``
    and remembers them by what stands for them in keys.

    A hub id stands for itself, wherever its files lie; a folder for its content.

    Args:
        folders: of ``paths.models``.
        digests: remember the content of large models.
    """

    def __init__(self, folders: Sequence[Path], digests: Digests | None = None):
        self.digests = digests or Digests()
        self.folders = [str(folder) for folder in folders]
        # One model may serve as encoder and as generator.
        self._uses: dict[tuple[str, str], Use] = {}
        # Every image of every arm asks; files are hashed once.
        self._identities: dict[tuple[str, str], str] = {}
        self._described: dict[tuple[str, str], Conf] = {}

    def identify(self, conf: Conf, key: str) -> str | None:
        """Return what stands for a component's weights in a content key;
        ``None`` where ddoq fits them itself.

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
            self._identities[asked] = identity
            self._uses[identity, conf["_target_"]] = Use(conf, key, place)
        return self._identities[asked]

    def _identity_and_place(self, conf: Conf, key: str) -> tuple[str, str | None]:
        path = conf["path"]
        if conf["_target_"] not in MODEL_PARTS:  # one file of weights, or those that timm names
            if path is None:
                return f"hub:{conf['model']}", None
            place = locate(path, self.folders, Path.is_file)
            return hash_file(place, key, self.digests), place
        place = self.locate(conf)
        identity = f"hub:{path}" if is_hub_id(path) else self._content(conf, place, key)
        return identity + (_NORMALISED if self._is_normalised(conf, key) else ""), place

    def _is_normalised(self, conf: Conf, key: str) -> bool:
        vae = self.describe(conf, "vae", key) if "vae" in MODEL_PARTS[conf["_target_"]] else None
        return vae is not None and is_normalised(vae)

    def describe(self, conf: Conf, part: str, key: str) -> Conf | None:
        """Return the configuration of one part of a pretrained model, if it is on this machine.

        Args:
            conf: of the component, with a path.
            part: a name of ``MODEL_PARTS``.
            key: config key of the path.

        Raises:
            DataError: it is no JSON object, or the model is a file without one.
        """
        place = self.locate(conf)
        if Path(place).is_file() and conf["_target_"].endswith("DiT"):
            from ddoq.generators.released import describe

            if (place, part) not in self._described:
                self._described |= {
                    (place, name): model_config
                    for name, model_config in describe(place, key).items()
                }
            return self._described[place, part]
        marker = MODEL_PARTS[conf["_target_"]][part]
        folder = (
            local_part(place, part, marker)
            if is_hub_id(place)
            else model_folder(place, part, key, marker)
        )
        return folder and read_model_config(folder / marker, key)

    def _content(self, conf: Conf, place: str, key: str) -> str:
        """Return a hash of the files that a component reads."""
        if Path(place).is_file() and conf["_target_"] in _FILES:
            return self._content_of_file(conf, Path(place), key)
        files: list[Path] = []
        for part, marker in MODEL_PARTS[conf["_target_"]].items():
            if conf["path"] in KNOWN and not Path(place).is_dir():
                raise DataError(
                    f"{key}: {conf['path']} is in none of {', '.join(self.folders)}",
                    f"put it there ({KNOWN[conf['path']]}), or set {key}=/its/folder",
                )
            folder = model_folder(place, part, key, marker)
            files += [file for file in folder.iterdir() if file.suffix in _WEIGHTS]
        return hash_files(set(files), Path(place), self.digests)

    def _content_of_file(self, conf: Conf, file: Path, key: str) -> str:
        """Return a hash of a single file, and of the configurations that have to lie beside it."""
        if conf["_target_"].endswith("DiT"):
            return hash_file(str(file), key, self.digests)
        parts = MODEL_PARTS[conf["_target_"]].items()
        beside = [model_folder(str(file), part, key, marker) / marker for part, marker in parts]
        return " ".join(hash_file(str(path), key, self.digests) for path in (file, *beside))

    def locate(self, conf: Conf) -> str:
        """Return the folder of ``paths.models`` that has all that a component reads,
        else its path as it is.
        """
        parts = MODEL_PARTS[conf["_target_"]].items()

        def holds(folder: Path) -> bool:
            if folder.is_file():
                return conf["_target_"] in _FILES
            return all(part_folder(folder, part, marker) for part, marker in parts)

        return locate(conf["path"], self.folders, holds)

    def place(self, identity: str, conf: Conf) -> str | None:
        """Return the folder, file or hub id behind an identity,
        for the component of a configuration.
        """
        return self._uses[identity, conf["_target_"]].place

    def key(self, identity: str, conf: Conf) -> str:
        """Return where in the configuration the path of a component's weights stands."""
        return self._uses[identity, conf["_target_"]].key

    def require(self, nodes: list[Node]) -> None:
        """Raise DataError where a node that has to be computed needs a model that is neither here
        nor to be had, or one whose files are cut off.
        """
        needed = {node.identity.get(name) for node in nodes for name in ("weights", "model")}
        for (identity, _), use in self._uses.items():
            if identity not in needed:
                continue
            if use.place and Path(use.place).is_file():
                check_file(Path(use.place), use.key)
                continue
            for part, marker in use.parts.items():
                folder = model_folder(use.place, part, use.key, marker)
                for file in folder.glob("*.safetensors"):
                    check_file(file, use.key)
                if part in ("vae", "transformer", "unet"):
                    variant_of(folder, use.key)
            if use.parts and self._is_normalised(use.conf, use.key) and _NORMALISED not in identity:
                raise DataError(
                    f"{use.key}: {use.place} came from the hub just now, "
                    "and its latents_mean belong to its key",
                    "give the same command again: the model is in the hub's cache now",
                )

    def fetch(self, log: Callable[[str], None]) -> None:
        """Download what is missing into the first folder of ``paths.models``;
        ``log`` takes a line per model.
        """
        for use in self._uses.values():
            if use.place is None or not is_hub_id(use.place):
                log(
                    f"{use.key}: {use.place or use.conf['model']}: "
                    f"{'here' if use.place else 'timm fetches it'}"
                )
                continue
            repo, _, revision = use.place.partition("@")
            log(f"{use.key}: {use.place} ({KNOWN.get(repo, 'licence: see the hub')})")
            files = hub_files(use.place, use.key)
            wanted = [
                name
                for part, marker in use.parts.items()
                for name in wanted_files(files, part, marker)
            ]
            target = Path(self.folders[0]) / use.place
            huggingface_hub.snapshot_download(
                repo, revision=revision or None, allow_patterns=wanted, local_dir=target
            )


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
    return {
        "generator": kept,
        "model": models.identify(conf, "generator.path") if "path" in conf else None,
    }


def networks_of(config: Conf) -> Iterator[tuple[Conf, str]]:
    """Return every component of a configuration that may have pretrained weights,
    with the key of its path.
    """
    for part in ("encoder", "generator"):
        if "path" in config[part]:
            yield config[part], f"{part}.path"
    spaces = [(path, conf) for path, group, conf in components(config) if group == "space"]
    yield from ((conf, f"{path}.path") for path, conf in spaces if "path" in conf)
    taught = config["protocol"]["labels"] != "hard" or config["compare"]["labels"]
    taught = taught or measure_of(config).fidelity or need_teacher(config)
    chosen = any(map(selects, (config, *config["baselines"].values())))
    looked_at = any(conf["_target_"] == TEACHER_FEATURES for _, conf in spaces)
    if taught or chosen or looked_at:
        for teacher in (config["teacher"].get("members") or {"": config["teacher"]}).values():
            if "path" in teacher:
                yield teacher, "teacher.path"
