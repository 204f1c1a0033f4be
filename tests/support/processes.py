"""The command line in processes of its own:
forked from one that has the libraries, or from the start of Python on.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]

#: A process that has imported the libraries, which takes longer than most runs here,
#: and is forked for every command.
WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(
    [
        *(
            "lightning",
            "timm",
            "torchvision",
            "hydra",
            "sklearn.datasets",
            "ot",
            "pandas",
            "pyarrow.parquet",
        ),
        *(
            "diffusers.models.autoencoders.autoencoder_kl",
            "diffusers.models.transformers.dit_transformer_2d",
        ),
        *("diffusers.schedulers", "numba", "jinja2", "rich.progress"),
    ]
)


def start(*overrides: str, folder: Path, cwd: Path = ROOT) -> BaseProcess:
    """Start the command line in a process of its own;
    it writes ``stdout`` and ``stderr`` into an existing folder.
    """
    process = WARM.Process(target=_command, args=(overrides, folder, cwd, dict(os.environ)))
    process.start()
    return process


def _command(
    overrides: tuple[str, ...], folder: Path, cwd: Path, environment: dict[str, str]
) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"})
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["ddoq", *overrides]
    from ddoq.run import main

    main()


def kill_once(begun: str, *overrides: str, outputs: Path, delay: float = 0.0) -> None:
    """Start a run in an outputs folder and kill it once its store has what a pattern asks for.

    Args:
        begun: glob pattern below the store.
        overrides: of the run.
        outputs: its folder of outputs.
        delay: seconds between the two.
    """
    process = start(*overrides, f"paths.outputs={outputs}", folder=outputs)
    while not any((outputs / "store").glob(begun)) and process.is_alive():
        time.sleep(0.005)
    time.sleep(delay)
    assert process.is_alive(), "the run was over before the kill"
    process.kill()
    process.join()


def ddoq(*overrides: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own; return what it said and its exit code."""
    with TemporaryDirectory() as folder:
        process = start(*overrides, folder=Path(folder), cwd=cwd)
        process.join(600)
        assert process.exitcode is not None, (
            f"ddoq {' '.join(overrides)} takes more than ten minutes"
        )
        said = [(Path(folder) / name).read_text() for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(["ddoq", *overrides], process.exitcode, *said)


def new_python(*overrides: str, **environment: str) -> subprocess.CompletedProcess:
    """Run the command line from the start of Python on, as variables that libraries read when they
    are imported, and joblib's own processes, which a fork would wait for, need it.
    """
    return subprocess.run(
        [sys.executable, "-m", "ddoq.run", *overrides],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | environment,
        timeout=600,
    )


@contextmanager
def without_rights() -> Iterator[None]:
    """Be nobody, where the tests run as root, whom permissions do not stop."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
