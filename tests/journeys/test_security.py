"""Nothing is let in: no file runs code, no name leaves its folder or becomes markup,
no secret is written down.
"""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import tarfile
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ddoq.config.checks import check
from ddoq.config.foreign import check_command_line
from ddoq.config.names import file_name, run_name
from ddoq.config.secrets import check_words, is_secret
from ddoq.data.builtin import CIFAR10
from ddoq.data.distilled import METADATA, load_distilled
from ddoq.data.label_space import LabelSpace
from ddoq.encoders import TAEF2, VAE, Features, Pixels
from ddoq.errors import ConfigError, DataError, DdoqError
from ddoq.generators import StableDiffusion
from ddoq.labelers import CIFARResNet, PretrainedTeacher
from support.processes import ddoq
from support.runs import ROOT, composed
from support.tiny_models import save_stable_diffusion

SPACE = LabelSpace.from_classes(["a", "b"])
IMG = "<img src=x onerror=alert(1)>"
#: Names of classes, as a data set of anybody's may have them.
NAMES = [
    IMG,
    "[red]../../../etc/passwd[/]",
    "=cmd|' /C calc'!A0",
    "/absolute\n\0{name}",
    "$\\frac{x}" + "ü" * 3000,
]


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def two_lines(caught, *words: str) -> None:
    said = str(caught.value)
    assert said.count("\n") == 1 and all(word in said for word in words), said


# --- pickles ----------------------------------------------------------------------------------


def bombed(folder: Path, kind: str, mark: Path) -> Path:
    """Write a malicious file in the form in which each kind of model is read; return its folder."""
    bomb = {"fc.weight": Bomb(mark)}
    if kind == "npz":
        np.savez(folder / "w.npz", **{"linear.weight": np.array([Bomb(mark)], dtype=object)})
    elif kind == "taef2":
        torch.save(bomb, folder / "taef2_encoder.pth")
    elif kind in ("vae", "unet", "text_encoder"):
        for file in save_stable_diffusion(folder).joinpath(kind).glob("*.safetensors"):
            file.unlink()
            torch.save(
                bomb,
                file.with_name({"text_encoder": "pytorch_model.bin"}.get(kind, file.stem + ".bin")),
            )
    else:
        torch.save(bomb, folder / "w.pth")
        (folder / "raw.safetensors").write_bytes(pickle.dumps(bomb))
    return folder


def diffusion(folder: Path) -> None:
    StableDiffusion(path=str(folder), encoder=Pixels(), label_space=SPACE)


READERS = {
    "npz": lambda folder: CIFARResNet(str(folder / "w.npz"), 2),
    "taef2": lambda folder: TAEF2(str(folder)),
    "vae": lambda folder: VAE(str(folder)),
    "unet": diffusion,
    "text_encoder": diffusion,
    "space": lambda folder: Features("resnet10t", str(folder / "w.pth")),
    "timm": lambda folder: PretrainedTeacher(
        "resnet10t", SPACE, 2, str(folder / "w.pth"), classes="dataset"
    ),
    "renamed": lambda folder: PretrainedTeacher(
        "resnet10t", SPACE, 2, str(folder / "raw.safetensors"), classes="dataset"
    ),
    "torchvision": lambda folder: PretrainedTeacher(
        "resnet18", SPACE, 2, str(folder / "w.pth"), "torchvision", "dataset"
    ),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_pickle_in_a_model_is_never_run(kind, tmp_path):
    mark = tmp_path / "exploded"
    with pytest.raises(DataError) as caught:
        READERS[kind](bombed(tmp_path, kind, mark))
    two_lines(caught, ".path: ")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_cifar_s_own_pickles_are_only_read_where_they_are_the_published_bytes(name, tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for part in CIFAR10._FORMS[0]:
        (folder / part).write_bytes(pickle.dumps({b"data": [], b"labels": []}))
    (folder / name).write_bytes(pickle.dumps({"data": Bomb(tmp_path / "exploded")}))
    with pytest.raises(DataError) as caught:
        CIFAR10("cifar10", 32, 3, search=(tmp_path,), download=False).open()
    two_lines(caught, "cannot be read")
    assert not (tmp_path / "exploded").exists()


def calls() -> list[tuple[Path, str, ast.Call]]:
    found = []
    for file in [*(ROOT / "ddoq").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]:
        nodes = ast.walk(ast.parse(file.read_text()))
        found += [
            (file, ast.unparse(node.func), node) for node in nodes if isinstance(node, ast.Call)
        ]
    return found


def test_no_line_of_the_code_loads_a_pickle_or_starts_a_shell():
    for file, name, call in calls():
        options = {word.arg: ast.unparse(word.value) for word in call.keywords}
        if name == "torch.load":
            assert options.get("weights_only") == "True", file
        if name in ("np.load", "numpy.load"):
            assert options.get("allow_pickle") == "False", file
        if name.endswith("extractall"):
            assert "filter" in options or file.name == "download.py", file
        assert not {"shell", "trust_remote_code"} & {
            word for word in options if options[word] != "False"
        }, file
        last = name.rsplit(".", 1)[-1]
        assert name not in ("eval", "exec", "os.system", "os.popen", "torch.hub.load"), file
        assert name != "yaml.load" or "SafeLoader" in ast.unparse(call), file
        assert last not in ("Unpickler", "unsafe_load", "full_load", "unpack_archive"), file
        assert not name.startswith(("pickle.", "joblib.", "cloudpickle.", "dill.")), file


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_an_archive_stay_out(kind, tmp_path, monkeypatch):
    from ddoq.data.download import Archive

    def download(url, folder, name, md5):  # what a server would send
        member = tarfile.TarInfo("x/link")
        member.type, member.linkname = kind, str(tmp_path / "target")
        with tarfile.open(Path(folder) / name, "w:gz") as archive:
            archive.addfile(member)
            inside = tarfile.TarInfo("x/link/evil")
            inside.size = 4
            archive.addfile(inside, io.BytesIO(b"evil"))

    (tmp_path / "target").mkdir()
    monkeypatch.setattr("torchvision.datasets.utils.download_url", download)
    with pytest.raises(tarfile.FilterError):
        Archive("http://localhost/x.tgz", "x", "").extract_below(tmp_path / "data")
    assert not list((tmp_path / "target").iterdir()) and not list((tmp_path / "data").iterdir())


# --- configurations ---------------------------------------------------------------------------

CALL = "{_target_:os.system,command:exit,name:x}"


@pytest.mark.parametrize(
    ("override", "path"),
    [
        (f"+quantizer.x={CALL}", "quantizer.x"),
        (f"+encoder.x=[{CALL}]", "encoder.x"),
        (
            f"+compare.students.x={CALL}",
            "compare.students.x._target_: 'os.system' is not a known student",
        ),
        (
            f"+compare.teachers.x={CALL}",
            "compare.teachers.x._target_: 'os.system' is not a known teacher",
        ),
        (
            f"+compare.teachers.x={{_target_:ddoq.labelers.Ensemble,name:x,members:{{y:{CALL}}}}}",
            "x.members.y._target_",
        ),
        (
            f"+compare.teachers.x={{_target_:ddoq.labelers.Teacher,name:x,student:{CALL}}}",
            "teachers.x.student._target_",
        ),
        (f"teacher.student={CALL}", "teacher.student._target_"),
        (f"teacher.protocol={CALL}", "teacher.protocol._target_"),
        (
            f"+ablation.weightings.x={CALL}",
            "ablation.weightings.x._target_: 'os.system' is not a known weighting",
        ),
        (
            f"+baselines.x.quantizer={CALL}",
            "baselines.x.quantizer._target_: 'os.system' is not a known quantizer",
        ),
        (f"+baselines.x.other={CALL}", "baselines.x.other"),
        ("+quantizer._args_=[1]", "quantizer._args_: there is no such key"),
        (f"run.until={CALL}", "run.until._target_"),
    ],
)
def test_only_components_are_ever_called(override, path):
    with pytest.raises(ConfigError) as caught:
        check(composed(override))
    two_lines(caught, path)


def test_a_foreign_component_without_a_constructor_of_ours_cannot_hide_a_call():
    config = composed()
    config["quantizer"]["num_restarts"] = {"_target_": "pathlib.Path.touch", "self": "x"}
    with pytest.raises(ConfigError, match=r"quantizer.num_restarts._target_: 'pathlib.Path.touch'"):
        check(config)


@pytest.mark.parametrize(
    "text",
    [
        'seed: !!python/object/apply:os.system ["exit"]',
        "hydra: {callbacks: {x: {_target_: ddoq.quantizers.KMeans}}}",
        "# @package hydra.callbacks\nx: {_target_: pathlib.Path.touch, self: exploded}",
        "hydra: {job_logging: {handlers: {x: {class: subprocess.Popen, args: [touch, exploded]}}}}",
        'hydra: {hydra_logging: {formatters: {x: {"()": os.system}}}}',
        "hydra: {searchpath: [/elsewhere]}",
        "hydra: {launcher: {_target_: os.system}}",
        # Through what a plugin imports.
        "hydra: {launcher: {_target_: hydra_plugins.ddoq_sweeper.os.system}}",
        "hydra: {sweeper: {sampler: {_target_: optuna.samplers._cmaes.pickle.loads}}}",
        "hydra: {sweeper: {custom_search_space: os.system}}",
        "hydra: {job_logging: {root: {level: 'ext://antigravity'}}}",
        "a: &a [*a]",
    ],
)
def test_files_from_elsewhere_are_looked_through_before_hydra_reads_them(text, tmp_path):
    (tmp_path / "launcher").mkdir()
    (tmp_path / "launcher" / "mine.yaml").write_text(
        "hydra: {launcher: {partition: gpu, setup: [module load cuda]}}"
    )
    for words in (["--config-dir", str(tmp_path)], [f"hydra.searchpath=[file://{tmp_path}]"]):
        check_command_line(words, tmp_path)
    (tmp_path / "launcher" / "evil.yaml").write_text(text)
    for words in (
        ["--config-dir", str(tmp_path)],
        [f"--config-d={tmp_path}"],
        [f"hydra.searchpath=[file://{tmp_path}]"],
    ):
        with pytest.raises(ConfigError) as caught:
            check_command_line(words, tmp_path)
        two_lines(caught, "evil.yaml")


def test_links_and_relative_folders_are_looked_through_too(tmp_path):
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    elsewhere.mkdir()
    here.mkdir()
    (elsewhere / "evil.yml").write_text("hydra: {callbacks: {}}")
    (here / "launcher").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(here)
    for words in (["--config-dir", str(here)], ["--config-path", "here"]):
        with pytest.raises(ConfigError) as caught:
            check_command_line(words, tmp_path)
        two_lines(caught, "evil.yml")


def test_the_front_door_refuses_foreign_callbacks_and_hydra_s_pickles(tmp_path):
    (tmp_path / "evil.yaml").write_text(
        "# @package hydra.callbacks\n"
        f"x: {{_target_: pathlib.Path.touch, self: {tmp_path / 'exploded'}}}"
    )
    for arguments in (
        ["--config-dir", str(tmp_path), "+evil@hydra.callbacks=evil"],
        ["--experimental-r", "x.pickle"],
    ):
        done = ddoq(*arguments, "run.plan_only=true", f"paths.outputs={tmp_path / 'out'}")
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 2, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"evil.yaml"}


@pytest.fixture(scope="module")
def plain() -> dict:
    """The default configuration."""
    return composed()


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../../x", "/x", "a/b", ".", "..", "a\\b", IMG, "[red]x", "=1+1", "a\nb", "x" * 300, ""],
)
@pytest.mark.parametrize(
    "key",
    [
        "dataset.name",
        "quantizer.name",
        "generator.name",
        "sweep.name",
        "compare.name",
        "baselines",
        "compare.students",
    ],
)
def test_names_are_names(key, name, plain):
    config = deepcopy(plain)
    part, _, last = key.partition(".")
    if key in ("baselines", "compare.students"):
        named = config["baselines"] if key == "baselines" else config["compare"]["students"]
        named[name] = {} if key == "baselines" else config["student"]
    else:
        config[part][last] = name
    folder = Path("outputs/runs") / run_name(config)
    assert (
        folder.parent == Path("outputs/runs")
        and len(folder.name.encode()) < 255
        and not folder.name.startswith(".")
    )
    if key == "sweep.name" and not name:
        return  # as good as none
    with pytest.raises(ConfigError) as caught:
        check(config)
    two_lines(caught, key)


def test_file_names_have_no_way_out():
    for text in (
        "../../x",
        "/etc/passwd",
        "a\0b",
        "\n",
        "...",
        "ü" * 500,
        "図" * 500,
        "~/x",
        "C:\\x",
    ):
        name = file_name(text)
        assert (
            name
            and not set("/\\\0\n") & set(name)
            and len(name.encode()) <= 240
            and not name.startswith(".")
        ), name


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../x.png",
        "C:\\x.png",
        "..\\x.png",
        "a\0.png",
        "\n/../x.png",
    ],
)
def test_images_of_a_distilled_folder_lie_inside_it(name, tmp_path):
    pq.write_table(
        pa.table({"file_name": [name], "label": [0], "weight": [1.0]}), tmp_path / METADATA
    )
    (tmp_path / "classes.json").write_text('["a"]')
    with pytest.raises(DataError) as caught:
        load_distilled(tmp_path)
    two_lines(caught, METADATA, "outside")


# --- a whole run ------------------------------------------------------------------------------

SECRETS = (
    "WANDB_API_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Run a sweep, with secrets in the environment,
    on classes of bad names in a folder of a bad name.
    """
    top = tmp_path_factory.mktemp("hostile")
    root, out, generator = top / IMG, top / "[red]out", np.random.default_rng(0)
    root.mkdir()
    features = {"info": {"features": {"label": {"names": NAMES, "_type": "ClassLabel"}}}}
    for split, number in (("train", 6), ("test", 2)):
        labels = np.repeat(range(len(NAMES)), number)
        images = [io.BytesIO() for _ in labels]
        for file, label in zip(images, labels, strict=True):
            Image.fromarray((generator.integers(0, 60, (8, 8)) + 40 * label).astype(np.uint8)).save(
                file, "PNG"
            )
        structs = [{"bytes": file.getvalue(), "path": f"../{IMG}.png"} for file in images]
        table = pa.table({"image": structs, "label": labels})
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(table, root / f"{split}.parquet")
    overrides = [
        "-m", "dataset=parquet", f'dataset.root="{root}"',
        "dataset.image_size=8", "dataset.channels=1", "dataset.name=names",
        "encoder=pixels", "generator=decode", "ablation=none", "baselines=none",
        "measure.curve=[]", "measure.num_folds=0", "ipc=1",
        "protocol=smoke", "protocol.num_seeds=2", "student.width=8",
        "logger=csv", "weighting=mass,uniform",
        f'paths.outputs="{out}"', "trainer.accelerator=cpu",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as environment:
        for name in SECRETS:
            environment.setenv(name, f"secret-of-{name}")
        done = ddoq(*overrides)
    assert done.returncode == 0, done.stderr
    return top, done


class Elements(HTMLParser):
    """Collects elements, the names of attributes, and texts."""

    def __init__(self, page: Path):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        if tag == "img":
            assert dict(attributes)["src"].startswith("data:image/"), attributes

    def handle_data(self, data):
        self.text.append(data)


def test_pages_show_names_as_text(hostile):
    top, _ = hostile
    pages = list(top.rglob("report.html")) + list(top.rglob("live.html"))
    assert len(pages) == 4
    for page in pages:
        found = Elements(page)
        assert not {"script", "iframe", "object", "embed", "base", "form"} & found.tags
        assert not any(name.startswith("on") for name in found.attributes)
        assert IMG in "".join(found.text)


def test_names_stay_in_the_folders_and_tables_survive_them(hostile):
    top, done = hostile
    assert {path.name for path in top.iterdir()} == {IMG, "[red]out"}
    assert "ddoq" in done.stdout and f"{top}/[red]out/runs/" in done.stdout.replace("\n", "")
    runs = [path.parent for path in top.rglob("results.csv")]
    assert len(runs) == 2
    for run in runs:
        inside = load_distilled(run / "distilled")
        assert inside.class_names == NAMES and len(inside.training_set().images) == len(NAMES)
        for name in inside.metadata["file_name"]:
            assert (
                (run / "distilled" / name).resolve().is_relative_to((run / "distilled").resolve())
            )


def test_secrets_of_the_environment_are_written_nowhere(hostile):
    top, done = hostile
    assert all(map(is_secret, SECRETS)) and not any(
        map(is_secret, ("PATH", "DDOQ_DATA", "MONKEY", "TOKENIZERS_PARALLELISM"))
    )
    files = [path for path in top.rglob("*") if path.is_file()]
    assert {"run.log", "config.yaml", "status.json", "sweep.json", "plan.json", "report.html"} <= {
        p.name for p in files
    }
    for content in [
        done.stdout.encode(),
        done.stderr.encode(),
        *(path.read_bytes() for path in files),
    ]:
        assert b"secret-of-" not in content


def test_a_secret_is_refused_in_an_override(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijkl")
    with pytest.raises(Exception, match="HF_TOKEN.*holds a secret"):
        composed("logger.entity=${oc.env:HF_TOKEN}")
    with pytest.raises(Exception, match="holds a secret"):
        composed("logger.entity=${oc.env:NO_SUCH_API_KEY,nothing}")
    assert composed("logger.entity=${oc.env:HOME}")["logger"]["entity"] == os.environ["HOME"]
    for words in (
        ["logger.entity=hf_abcdefghijkl"],
        ["hf_abcdefghijkl=1"],
        ["paths.outputs=s3://me:geheim@host/x"],
    ):
        with pytest.raises(DdoqError) as caught:
            check_words(words)
        two_lines(caught, "configurations are written to files")
        assert "hf_abc" not in str(caught.value) and "geheim" not in str(caught.value)
    check_words(
        [
            "seed=1",
            "dataset.root=/a:b@c",
            "generator.path=owner/name@main",
            "paths.data=/of/hf_abcdefghijkl",
        ]
    )
