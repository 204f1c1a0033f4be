"""What shells, containers and notebooks hand to the libraries,
made harmless before these are imported.

Only the command line calls it: a notebook that imports ddoq keeps its surroundings as they are.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
import warnings
from pathlib import Path

#: Variables that name a folder. Libraries fail late, and each in its own way,
#: where there can be none.
_FOLDERS = (
    *("TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR"),
    *("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"),
    *("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"),
)
#: Where numba keeps its code by default.
_COMPILED = Path(__file__).resolve().parents[1] / "quantizers" / "__pycache__"


def guard() -> None:
    """Make streams, locale and variables such that no library stumbles over them;
    a second call changes nothing.
    """
    _open_streams()
    _speak_utf8()
    _let_print()
    _let_warn()
    # Jupyter's is no other environment's, and a wrong one breaks the import.
    os.environ["MPLBACKEND"] = "agg"
    _check_folders()
    _find_caches()
    _wait_passively()


def _wait_passively() -> None:
    """Let threads of the libraries wait without a loop, and be one: cores are for processes."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def _open_streams() -> None:
    """Open what the shell has closed (``>&-``):
    the next file would get its number, and what is printed with it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # for the process's life
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)


def _speak_utf8() -> None:
    """Start Python anew in its UTF-8 mode where the locale has another encoding.

    Names of files would be other texts there,
    and files that libraries write could not hold every name.
    """
    if sys.getfilesystemencoding() == "utf-8" or "utf8" in sys._xoptions or not sys.executable:
        return
    # The terminal stays as it is.
    os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:replace")
    os.environ["PYTHONUTF8"] = "1"  # of the processes that this one starts
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _let_print() -> None:
    """Replace what the terminal's encoding lacks, and bytes of names that are no text."""
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)


def _let_warn() -> None:
    """Take ``PYTHONWARNINGS=error`` (a test runner's) back:
    libraries warn of one another's ways, and go on.
    """
    if any(option.startswith("error") for option in sys.warnoptions):
        warnings.simplefilter("default")
        sys.warnoptions.clear()  # which ``multiprocessing`` hands on
        os.environ["PYTHONWARNINGS"] = "default"  # of the processes that this one starts


def _check_folders() -> None:
    """Pass over variables that name no possible folder,
    so that libraries take their own default.
    """
    for name in _FOLDERS:
        folder = os.environ.get(name)
        can_be = folder and (os.path.isdir(folder) or (name != "TMPDIR" and _is_writable(folder)))
        if folder is None or can_be:
            continue
        del os.environ[name]
        if folder:  # an empty one means none
            print(
                f"ddoq: {name}={folder} is no folder and cannot become one: passed over",
                file=sys.stderr,
            )


def _find_caches() -> None:
    """Name caches in a private folder where neither the home nor the installed files take them."""
    cache, config = _of_user("XDG_CACHE_HOME", ".cache"), _of_user("XDG_CONFIG_HOME", ".config")
    if not os.path.isdir(cache) and not _is_writable(cache):
        _keep_in_private("XDG_CACHE_HOME", "cache")
        cache = _of_user("XDG_CACHE_HOME", ".cache")
    if not any(map(_is_writable, (os.environ.get("NUMBA_CACHE_DIR", ""), str(_COMPILED), cache))):
        _keep_in_private("NUMBA_CACHE_DIR", "numba")
    if not all(
        map(
            _is_writable,
            (os.environ.get("MPLCONFIGDIR", config), os.environ.get("MPLCONFIGDIR", cache)),
        )
    ):
        _keep_in_private("MPLCONFIGDIR", "matplotlib")


def _of_user(variable: str, name: str) -> str:
    """Return a folder of the user's; without a home it is none,
    and must not become one that is called ``~``.
    """
    folder = os.environ.get(variable) or os.path.join(os.path.expanduser("~"), name)
    return "" if folder.startswith("~") else folder


def _is_writable(folder: str) -> bool:
    """Tell whether a folder can be written, or made; nothing is made to find out."""
    place = os.path.abspath(folder)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    return bool(folder) and os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK)


def _keep_in_private(variable: str, name: str) -> None:
    try:
        os.environ[variable] = os.path.join(_private_folder(), name)
    except OSError:  # nothing can be written anywhere: then there is no cache
        os.environ.pop(variable, None)


def _private_folder() -> str:
    """Return a temporary folder that nobody else can have put anything into:
    numba's cache is run as it is found.

    Raises:
        OSError: there is no temporary folder.
    """
    folder = os.path.join(tempfile.gettempdir(), f"ddoq-{os.getuid()}")
    try:
        os.mkdir(folder, mode=0o700)
    except FileExistsError:
        status = os.lstat(folder)
        if (
            not stat.S_ISDIR(status.st_mode)
            or status.st_uid != os.getuid()
            or status.st_mode & 0o077
        ):
            return tempfile.mkdtemp(prefix="ddoq-")
    return folder
