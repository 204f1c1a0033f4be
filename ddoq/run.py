"""The Hydra entry: ``python -m ddoq.run`` and the console script ``ddoq``.

Only Hydra is imported here: ``--help``, TAB and a bad override answer in well under a second.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ddoq import __version__
from ddoq.config.choices import conf_dir, files, groups
from ddoq.config.completion import BASH, completions, first_words
from ddoq.config.foreign import check_command_line
from ddoq.config.names import command_line, register_resolvers
from ddoq.config.overrides import check_overrides
from ddoq.config.schema import register
from ddoq.config.secrets import check_words
from ddoq.errors import ConfigError, DdoqError
from ddoq.pipeline.stages import STAGES
from ddoq.utils.cores import allow_fork
from ddoq.utils.disk import disk_error
from ddoq.utils.stop import Stopped, stoppable
from ddoq.utils.surroundings import guard

#: What is no run: ``ddoq <command> ...``, with the module whose ``main(arguments)`` does it
#: and returns the exit code.
COMMANDS = {
    "help": "ddoq.help",
    "report": "ddoq.report.command",
    "watch": "ddoq.watch.command",
    "store": "ddoq.pipeline.command",
}


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def _main(config: DictConfig) -> float | None:
    guard()  # once more where a launcher started this process
    from ddoq.job import run_job
    from ddoq.pipeline.plans import remove_unplanned

    log, run_dir = logging.getLogger("ddoq"), Path(HydraConfig.get().runtime.output_dir)
    log.info("%s\n%s", versions(), shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    is_single = HydraConfig.get().mode == RunMode.RUN
    try:
        if HydraConfig.get().job.chdir:
            raise ConfigError(
                "hydra.job.chdir: true would put every relative path elsewhere", "leave it out"
            )
        if "optuna" in HydraConfig.get().sweeper._target_ and config.split == "test":
            raise ConfigError(
                "split: a search would choose on the test split", "set split=validation"
            )
        with stoppable():
            objective = run_job(
                OmegaConf.to_container(config, resolve=True),
                run_dir,
                command_line(HydraConfig.get().overrides.task),
            )
    except Stopped as stopped:
        log.error("%s", stopped, exc_info=stopped)
        raise
    except Exception as caught:
        outputs = os.path.expanduser(config.paths.outputs)
        error = caught if isinstance(caught, DdoqError) else disk_error(caught, outputs)
        log.error("%s", error or caught, exc_info=caught)  # the traceback goes to run.log
        if error is None:
            raise
        _complain(error)  # of a sweep's points at once, while the others go on
        if is_single:  # a sweep tells of every point, started or not
            remove_unplanned(run_dir)
            sys.exit(1)  # before Hydra adds a line of its own
        raise error from (caught if error is not caught else None)
    if is_single:
        remove_unplanned(run_dir)
    return objective


def versions() -> str:
    """Return the versions of ddoq and of what a result depends on most."""
    from importlib.metadata import version

    others = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "hydra-core"))
    return f"ddoq {__version__} ({others}, Python {platform.python_version()})"


def _complain(error: DdoqError) -> None:
    print(f"ddoq: error: {error}", file=sys.stderr)


def _print_help() -> None:
    """Print the help. (Hydra's own lists the groups by composing each of them,
    which takes a second.)
    """
    choices = [f"  {group:<11}{', '.join(files(group))}" for group in groups()]
    text = Path(__file__).with_name("help.txt").read_text(encoding="utf-8")
    print(text.format(groups="\n".join(choices), stages=" ".join(STAGES)), end="")


def _completed() -> bool:
    """Answer a shell that asks for completions where Hydra has none; tell whether that was all."""
    if sys.argv[1:] == ["-sc", "install=bash"]:
        print(BASH)
    if sys.argv[1:2] != ["-sc"] or not sys.argv[-1].startswith("query="):
        return False
    line, commands = os.environ.get("COMP_LINE", ""), (*COMMANDS, "fetch")
    names = completions(line, commands)
    print(*(first_words(line, commands) if names is None else names), end=" ")
    # Behind `fetch` stand overrides, as behind `ddoq` itself.
    os.environ["COMP_LINE"] = re.sub(r"^(\s*\S+\s+)fetch\s", r"\1", line)
    return names is not None


def main() -> None:
    """Run, and turn every problem the user can solve into two lines and exit code 1."""
    guard()
    allow_fork()
    command = COMMANDS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if not command:  # which composes nothing
        register()
        register_resolvers()
    if {"--help", "-h"} & set(sys.argv[1:]) and not command:
        _print_help()
        return
    if "--version" in sys.argv[1:]:
        print(versions())
        return
    if _completed():
        return
    if sys.argv[1:2] == ["fetch"]:
        sys.argv[1] = "run.fetch=true"
    launchers = [
        word for word in sys.argv[1:] if word.startswith("launcher=") and word != "launcher=local"
    ]
    if launchers and not any(word.startswith("-") for word in sys.argv[1:]):
        # These launchers say so themselves, but Hydra does not hear them if anything is wrong with
        # the configuration, takes the sweep for a single run and complains about its commas.
        sys.argv.append("--multirun")
    verbose = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    try:
        check_words(sys.argv[1:])  # before Hydra writes them down
        if command:
            words = [word.replace("paths.outputs=", "--outputs=", 1) for word in sys.argv[2:]]
            sys.exit(import_module(command).main(words))
        check_overrides(sys.argv[1:])
        check_command_line(sys.argv[1:], Path(__file__).parent)
        _main()
    except DdoqError as error:
        _complain(error)
        sys.exit(1)
    except KeyboardInterrupt:
        print("ddoq: interrupted; the same command resumes", file=sys.stderr)
        sys.exit(130)
    except Stopped as stopped:
        print(f"ddoq: {stopped}; the same command resumes", file=sys.stderr)
        sys.exit(128 + stopped.number)
    except BrokenPipeError:  # `ddoq ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if verbose:
            raise
        from ddoq.config.explain import explain

        _complain(explain(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
