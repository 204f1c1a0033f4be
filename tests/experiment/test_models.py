"""Where models come from: folders, the hub (a small one on this machine),
and what stands for them in keys.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from ddoq.engine.memory import FittingBatches
from ddoq.errors import DataError, StageError
from ddoq.experiment import Models
from ddoq.utils.hub import is_hub_id, locate, model_folder, wanted_files
from support.processes import ddoq, new_python
from support.runs import composed
from support.twins import save_models

DIT, SD = "facebook/DiT-XL-2-256", "stable-diffusion-v1-5/stable-diffusion-v1-5"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as a download takes."""

    root: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repo = self.root / parts[2] / parts[3]
            files = [
                (str(f.relative_to(repo)), f.stat().st_size)
                for f in sorted(repo.rglob("*"))
                if f.is_file()
            ]
            answer = {
                "id": "/".join(parts[2:4]),
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name, _ in files],
            }
            if parts[4:5] == ["tree"]:
                answer = [
                    {"type": "file", "path": name, "size": size, "oid": "0" * 40}
                    for name, size in files
                ]
            self._send(json.dumps(answer).encode(), body, repo.is_dir())
        else:
            file = self.root.joinpath(*parts[:2], *parts[4:])  # owner/name/resolve/<commit>/path
            self.asked.append("/".join(parts[4:]))
            self._send(file.read_bytes() if file.is_file() else b"", body, file.is_file())

    def _send(self, content: bytes, body: bool, found: bool) -> None:
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def hub(models, tmp_path):
    """A hub that holds the tiny models, copies of weights in other formats beside them."""
    _Hub.root, _Hub.asked = tmp_path / "hub", []
    shutil.copytree(models, _Hub.root)
    unet = _Hub.root / SD / "unet"
    for name in (
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.bin",
        "flax_model.msgpack",
    ):
        (unet / name).write_bytes(b"a copy nobody reads")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_fetch_downloads_what_an_experiment_reads_and_nothing_else(hub, models, tmp_path):
    arguments = [
        "+experiment=imagenette_sd",
        "dataset=digits",
        "protocol=smoke",
        f"paths.outputs={tmp_path}/out",
    ]
    environment = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    done = new_python("fetch", *arguments, f"paths.models=[{tmp_path}/fetched]", **environment)
    assert done.returncode == 0, done.stderr
    assert "OpenRAIL-M" in done.stdout
    folder = tmp_path / "fetched" / SD
    for part in ("vae", "unet", "text_encoder", "tokenizer", "scheduler"):
        for file in (models / SD / part).iterdir():
            assert (folder / part / file.name).read_bytes() == file.read_bytes()
    assert not [
        name for name in _Hub.asked if "fp16" in name or name.endswith((".bin", ".msgpack"))
    ]
    again = ddoq("fetch", *arguments, f"paths.models=[{tmp_path}/fetched]")  # without the hub
    assert again.returncode == 0 and "here" in again.stdout


def test_a_fetched_model_is_the_same_in_keys_as_the_hub_s(models, tmp_path):
    conf = {**composed("generator=dit_xl2_256")["generator"]}
    there, elsewhere = Models([str(models)]), Models([str(tmp_path)])
    assert (
        there.identify(conf, "generator.path")
        == elsewhere.identify(conf, "generator.path")
        == f"hub:{DIT}"
    )
    assert (
        there.place(f"hub:{DIT}", conf) == str(models / DIT)
        and elsewhere.place(f"hub:{DIT}", conf) == DIT
    )


def test_a_local_model_is_its_content(models, tmp_path):
    conf = {**composed("generator=dit_xl2_256")["generator"], "path": str(models / DIT)}
    shutil.copytree(models / DIT, tmp_path / "copy")
    copy = {**conf, "path": str(tmp_path / "copy")}
    first = Models([]).identify(conf, "generator.path")
    assert first == Models([]).identify(copy, "generator.path") != f"hub:{DIT}"
    (tmp_path / "copy" / "notes.md").write_text("not read by anybody")
    assert first == Models([]).identify(copy, "generator.path")
    config = tmp_path / "copy" / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.0001", "0.0002"))
    assert first != Models([]).identify(copy, "generator.path")


def test_hub_ids_may_name_a_revision():
    assert is_hub_id(DIT) and is_hub_id(f"{DIT}@{COMMIT}") and is_hub_id("owner/name@v1.0")
    assert (
        not is_hub_id("/a/b")
        and not is_hub_id("name")
        and not is_hub_id("a/b/c")
        and not is_hub_id("../shared/vae")
    )


def test_folders_are_searched_in_order(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place / "owner" / "name").mkdir(parents=True)
    folders = [tmp_path / "none", tmp_path / "b", tmp_path / "a"]
    assert locate("owner/name", folders, Path.is_dir) == str(tmp_path / "b" / "owner" / "name")
    assert locate("owner/other", folders, Path.is_dir) == "owner/other"


def test_a_model_that_was_fetched_in_part_is_not_here(models, tmp_path):
    shutil.copytree(models / SD / "vae", tmp_path / SD / "vae")  # all that encoder=sd15_vae needs
    encoder, generator = (
        composed("encoder=sd15_vae", "generator=sd15")[part] for part in ("encoder", "generator")
    )
    assert Models([str(tmp_path)]).locate(encoder) == str(tmp_path / SD)
    assert Models([str(tmp_path)]).locate(generator) == SD
    assert Models([str(tmp_path), str(models)]).locate(generator) == str(models / SD)


def test_one_copy_of_the_weights_is_wanted():
    files = {"model_index.json", "v1-5-pruned.ckpt"} | {
        f"unet/{name}"
        for name in (
            "config.json",
            "diffusion_pytorch_model.safetensors",
            "diffusion_pytorch_model.fp16.safetensors",
            "diffusion_pytorch_model.non_ema.safetensors",
            "diffusion_pytorch_model.bin",
        )
    }
    assert wanted_files(files, "unet", "config.json") == [
        "unet/diffusion_pytorch_model.safetensors",
        "unet/config.json",
    ]
    old = {"transformer/config.json", "transformer/diffusion_pytorch_model.bin"}
    assert wanted_files(old, "transformer", "config.json") == [
        "transformer/diffusion_pytorch_model.bin",
        "transformer/config.json",
    ]
    assert wanted_files(
        {"config.json", "a.safetensors", "x/b.safetensors"}, "vae", "config.json"
    ) == [
        "a.safetensors",
        "config.json",
    ]


def test_a_folder_without_the_part_names_the_part(models, tmp_path):
    with pytest.raises(
        DataError, match=r"generator.path: no model in .*\(no config.json\)\n.*unet"
    ):
        model_folder(str(models / DIT), "unet", "generator.path")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")]
)
def test_a_batch_that_does_not_fit_is_halved_and_the_rest_follows(error, caplog):
    sizes = []

    def work(rows: slice) -> torch.Tensor:
        sizes.append(rows.stop - rows.start)
        if sizes[-1] > 3:
            raise error
        return torch.arange(10.0)[rows]

    fitting = FittingBatches("generate")
    assert torch.equal(fitting(10, work), torch.arange(10.0))
    assert sizes == [10, 5, 2, 2, 2, 2, 2]
    assert torch.equal(fitting(4, work), torch.arange(4.0)) and sizes[7:] == [2, 2]  # it remembers
    assert "out of memory with a batch of 10, going on with 5" in caplog.text


def test_a_single_image_that_does_not_fit_says_so_and_other_errors_pass():
    def never(rows: slice) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def wrong(rows: slice) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(StageError, match="generate: out of memory with a batch of one"):
        FittingBatches("generate")(8, never)
    with pytest.raises(RuntimeError, match="shapes"):
        FittingBatches("generate")(8, wrong)
