"""What shells, containers and notebooks do to a run:
it goes on, or says in two lines what to type.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from ddoq.config.explain import explain
from ddoq.config.names import run_name
from ddoq.config.overrides import check_overrides, quoted, several_values
from ddoq.data.folder import ImageFolder
from ddoq.errors import ConfigError, StageError
from ddoq.job import prepare
from ddoq.utils import surroundings
from ddoq.utils.device import check_accelerator
from ddoq.utils.disk import disk_error
from ddoq.utils.paths import as_folder, expand_path, expand_paths
from ddoq.utils.workers import with_workers
from support.processes import new_python
from support.runs import ROOT, composed


def photos(root, names=("a", "b"), ending="png", kind="PNG"):
    """Write twenty pictures into each of some class folders."""
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(20):
            picture = np.full((8, 8, 3), 10 * number + 9 * label, np.uint8)
            Image.fromarray(picture).save(root / name / f"{number}.{ending}", kind)
    return root


# --- paths ------------------------------------------------------------------------------------

HARD = [
    "/run=3",
    "/Größe",
    "/(1)",
    "/[red]",
    "/a,b",
    "~/x",
    "/don't",
    '/say "x"',
    "/a\\",
    "/`x`",
    "/a  b",
    "/new\nline",
]


@pytest.mark.parametrize("path", [*HARD, "/#1", "/{id}", "/!x", "/日本 😀", "/a\tb"])
def test_remedy_for_hydras_grammar_gives_that_path_when_it_is_typed(path):
    typed = subprocess.run(
        ["bash", "-c", f"printf %s {quoted(f'dataset.root={path}')}"], capture_output=True
    )
    assert OverridesParser.create().parse_override(typed.stdout.decode()).value() == path


@pytest.mark.parametrize("path", [path for path in HARD if path not in ("/a,b", "/a\\", "/a  b")])
def test_path_that_hydra_cannot_read_is_refused_with_the_words_to_type(path):
    with pytest.raises(ConfigError) as caught:
        check_overrides([f"dataset.root={path}"])
    assert quoted(f"dataset.root={path}") in caught.value.remedy


@pytest.mark.parametrize(
    "word", ["paths.outputs=1e3", "paths.outputs=2024_01", "sweep.name=true", "dataset.root=1.50"]
)
def test_text_that_hydra_takes_for_a_number_is_refused(word):
    with pytest.raises(ConfigError, match="Hydra reads"):
        check_overrides([word])


@pytest.mark.parametrize(
    "word",
    [
        *(
            "dataset.root=/my photos",
            "dataset.root=/50%",
            "dataset.root=/a:b",
            'paths.outputs="1e3"',
            "paths.outputs=7",
        ),
        *(
            "ipc=1e1",
            "ipc=1,2",
            "~baselines",
            "++ipc=3",
            "generator.strength=0.50",
            "run.plan_only=true",
            "-m",
        ),
    ],
)
def test_words_that_hydra_reads_as_they_are_meant_pass(word):
    check_overrides([word])


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("--ipc=5", "ipc=..."),
        ("digits", "key=value"),
        ("dataset.root", "dataset.root=..."),
        ("measure.curve=[1,2", "a list, each item a whole number"),
        ("run.plan_only=(x)", "true or false"),
    ],
)
def test_words_that_are_no_overrides_say_what_to_write(word, remedy):
    with pytest.raises(ConfigError) as caught:
        check_overrides([word])
    assert remedy in caught.value.remedy


def test_commas_are_a_list_a_path_or_a_sweep():
    assert "'measure.curve=[1,2]'" in several_values("measure.curve=1,2").remedy
    assert "'paths.data=[a,b]'" in several_values("paths.data=a,b").remedy
    assert """'dataset.root="/a,b"'""" in several_values("dataset.root=/a,b").remedy
    assert several_values("ipc=1,2").remedy == "add -m to run one after the other"


@pytest.mark.parametrize(
    ("overrides", "cause", "remedy"),
    [
        (["ipc=1e1"], "ipc:", "set ipc=10"),
        (["seed=null"], "seed: null", "a whole number"),
        (
            ["dataset=image_folder", "dataset.root=${oc.env:DDOQ_NOWHERE}"],
            "DDOQ_NOWHERE is not set",
            "export DDOQ_NOWHERE",
        ),
        (["~paths.outputs"], "paths.outputs", "do not delete it"),
    ],
)
def test_errors_of_hydra_name_the_value_to_set(overrides, cause, remedy):
    with pytest.raises(Exception) as caught:
        composed(*overrides)
    said = explain(caught.value)
    assert cause in said.cause and remedy in said.remedy


def test_home_is_expanded_wherever_a_path_stands(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = composed(
        "dataset=image_folder",
        "dataset.root='~/photos'",
        "encoder=vae",
        "encoder.path='~/vae'",
        "generator.path='~/dit'",
        "paths.outputs='~/out'",
        "paths.data=['~/one','/two']",
        "paths.models='~'",
        "protocol.labels=soft",
        "teacher=resnet18",
        "teacher.path='~/t.pth'",
    )
    found = expand_paths(config)
    assert "~" not in repr(found) and found["dataset"]["root"] == f"{tmp_path}/photos"
    assert found["paths"]["data"] == [f"{tmp_path}/one", "/two"]
    assert found["baselines"]["d4m"]["generator"]["path"] == f"{tmp_path}/dit"
    assert as_folder("~/x") == tmp_path / "x"


def test_run_has_one_name_however_its_home_is_written(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(photos(tmp_path)))
    words = [
        "dataset=image_folder",
        "dataset.image_size=8",
        "encoder=pixels",
        "paths.outputs='~/out'",
    ]
    short = composed(*words, "dataset.root='~'")
    whole = composed(*words, f"dataset.root={tmp_path}")
    job = prepare(short)
    assert run_name(job.config) == run_name(whole) and job.store.root == tmp_path / "out" / "store"


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("s3://bucket/x", "mounted"),
        ("file:///x", "paths.outputs=/x"),
        ("~nobody-of-that-name/x", """'paths.outputs="./~nobody-of-that-name/x"'"""),
        ("https://huggingface.co/stabilityai/sd-vae-ft-mse", "=stabilityai/sd-vae-ft-mse"),
    ],
)
def test_paths_of_no_folder_are_refused(path, remedy):
    with pytest.raises(ConfigError) as caught:
        expand_path(path, "paths.outputs")
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    "path", ["./~x", "a~", "stabilityai/sd-vae-ft-mse", "/exp:1", "x y", "[red]", "owner/name@v1"]
)
def test_paths_of_folders_stay_as_they_are(path):
    assert expand_path(path, "paths.outputs") == path


def test_folder_with_a_colon_is_no_protocol(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert expand_path("exp:1", "paths.outputs") == str(tmp_path / "exp:1")
    # It is looked for below paths.models, too.
    assert expand_path("vae:1", "encoder.path") == "vae:1"


# --- variables, caches, streams ---------------------------------------------------------------


@pytest.fixture
def shell(monkeypatch):
    """Variables that a test sets, and those that ``guard`` sets, are as before afterwards."""
    for name in ("MPLBACKEND", *surroundings._FOLDERS):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    "name", ["NUMBA_CACHE_DIR", "HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME", "TMPDIR", "WANDB_DIR"]
)
@pytest.mark.parametrize("folder", ["/dev/null/x", ""])
def test_variables_that_name_no_folder_are_passed_over(shell, capsys, name, folder):
    shell.setenv(name, folder)
    surroundings._check_folders()
    assert name not in os.environ
    assert (f"{name}=/dev/null/x" in capsys.readouterr().err) == bool(folder)


def test_variables_that_name_a_folder_stay(shell, capsys, tmp_path):
    for number, name in enumerate(surroundings._FOLDERS):
        shell.setenv(name, str(tmp_path / str(number if name != "TMPDIR" else "")))
    before = dict(os.environ)
    surroundings._check_folders()
    surroundings._find_caches()
    assert dict(os.environ) == before and not capsys.readouterr().err


def test_caches_are_private_where_nothing_can_be_written(shell, tmp_path):
    shell.setenv("HOME", "/dev/null/home")
    shell.setattr(surroundings, "_COMPILED", "/dev/null/installed")
    shell.setattr(surroundings.tempfile, "tempdir", str(tmp_path))
    surroundings._find_caches()
    own = tmp_path / f"ddoq-{os.getuid()}"
    assert (
        os.environ["MPLCONFIGDIR"] == f"{own}/matplotlib"
        and os.environ["XDG_CACHE_HOME"] == f"{own}/cache"
    )
    assert own.stat().st_mode & 0o077 == 0


def test_temporary_folder_of_somebody_else_is_not_trusted(shell, tmp_path):
    shell.setattr(surroundings.tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"ddoq-{os.getuid()}").mkdir(mode=0o777)
    os.chmod(tmp_path / f"ddoq-{os.getuid()}", 0o777)
    assert surroundings._private_folder() != str(tmp_path / f"ddoq-{os.getuid()}")


def test_import_leaves_a_notebooks_surroundings_alone():
    code = (
        "import os, sys, sklearn;"  # which sets KMP_* itself
        "before = dict(os.environ), sys.stdout.errors;"
        "import ddoq, ddoq.quantizers.compiled;"
        "import ddoq.report.figures; assert (dict(os.environ), sys.stdout.errors) == before;"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_loops_compile_without_a_cache(monkeypatch, tmp_path):
    from numba.core import caching

    from ddoq.quantizers.compiled import compiled

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert compiled()(lambda x: x + 1)(1) == 2


#: Closed streams, an encoding without most characters, a backend that is not here,
#: a terminal of twelve columns.
HARSH = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "MPLBACKEND": "nonsense",
    "OMP_NUM_THREADS": "4,2",
    "COLUMNS": "12",
    "TERM": "dumb",
    "NUMBA_CACHE_DIR": "/dev/null/x",
    "HF_HOME": "/dev/null/hf",
    "TMPDIR": "/nonexistent",
    "PYTHONWARNINGS": "error",
    "CUDA_VISIBLE_DEVICES": "",
}


def test_harsh_surroundings_change_no_name_and_no_key(tmp_path):
    root, out = photos(tmp_path / "Größe", ["ä", "b"]), tmp_path / "aus=gabe"
    words = [
        "dataset=image_folder",
        "dataset.image_size=8",
        "encoder=pixels",
        "run.until=quantize",
        "ipc=1",
    ]
    words += [f'dataset.root="{root}"', f'paths.outputs="{out}"']
    harsh = new_python(*words, **HARSH)
    assert harsh.returncode == 0, harsh.stderr
    assert "?" in harsh.stdout and "computed" in harsh.stdout  # for the tick
    usual = prepare(composed(*words))
    assert usual.store.manifest(usual.experiment.nodes.index)["facts"]["class_names"] == ["b", "ä"]


def test_nothing_is_printed_into_the_first_file_of_a_run_without_streams(tmp_path):
    code = (
        "import os, sys; from ddoq.utils.surroundings import guard; guard();"
        "file = open('first', 'w'); print('printed'); print('said', file=sys.stderr);"
        "os.write(1, b'written'); os.write(2, b'written')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(
        [*("bash", "-c", '"$0" -c "$1" >&- 2>&- <&-'), sys.executable, code],
        cwd=tmp_path,
        env=environment,
    )
    assert (tmp_path / "first").read_text() == ""


# --- the machine ------------------------------------------------------------------------------


@pytest.mark.parametrize("accelerator", ["gpu", "mps"])
def test_device_that_is_not_there_is_refused(accelerator, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="trainer.accelerator") as caught:
        check_accelerator(accelerator)
    assert "trainer.accelerator=cpu" in caught.value.remedy
    check_accelerator("auto")
    check_accelerator("cpu")


@pytest.mark.parametrize(
    "said",
    [
        "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)",
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ...",
        "received 0 items of ancdata",
        "DataLoader worker (pid(s) 7) exited unexpectedly",
    ],
)
def test_what_worker_processes_lack_is_said(said):
    with pytest.raises(StageError, match="trainer.num_workers: 3"), with_workers(3):
        raise RuntimeError(said)


def test_errors_of_no_worker_stay_what_they_are():
    with pytest.raises(RuntimeError, match="mat1"), with_workers(3):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="shm"), with_workers(0):
        raise RuntimeError("shm")


def test_disks_that_paths_outputs_does_not_name_have_another_remedy(tmp_path):
    inside = disk_error(PermissionError(13, "", str(tmp_path / "store" / "x")), tmp_path)
    outside = disk_error(PermissionError(13, "", "/elsewhere/.cache/x"), tmp_path)
    assert "paths.outputs" in inside.remedy and "paths.outputs" not in outside.remedy
    assert "/elsewhere/.cache/x" in outside.cause


@pytest.mark.parametrize("ending", ["jfif", "jpe", "JFIF"])
def test_jpeg_by_its_other_endings_is_read(tmp_path, ending):
    photos(tmp_path, ["a"])
    photos(tmp_path, ["b"], ending, "JPEG")
    source = ImageFolder("f", 8, 3, root=str(tmp_path)).open()
    assert np.bincount(source.labels).tolist() == [20, 20] and not source.ignored
