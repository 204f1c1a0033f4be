"""Hydra's side of a sweep: takes Hydra's overrides and launchers,
leaves everything else to ``ddoq.sweeps``.

Hydra only takes plugins from packages called ``hydra_plugins``, hence this folder. It looks into it
at every start, so nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from ddoq.errors import DdoqError

if TYPE_CHECKING:
    from ddoq.sweeps.waves import Wave


class DdoqSweeper(BasicSweeper):
    """Every combination of the swept values,
    checked and planned before the launcher gets the first of them.
    """

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """See ``hydra.plugins.sweeper.Sweeper``."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.task_function = task_function

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep of a command line.

        Raises:
            DdoqError: see ``ddoq.sweeps.sweep.run_sweep``.
        """
        from ddoq.sweeps.sweep import run_sweep

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        lists = self.split_arguments(
            parser.parse_overrides([*self._parse_config(), *arguments]), None
        )[0]
        run_sweep(
            lists, self._compose, self._launch, OmegaConf.to_container(self.config.hydra.launcher)
        )

    def _compose(self, overrides: Sequence[str]) -> dict[str, Any]:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            del config["hydra"]
        return OmegaConf.to_container(config, resolve=True)

    def _config_with(self, resources: Mapping[str, Any]) -> DictConfig:
        config = self.config.copy()
        config.hydra.launcher = OmegaConf.merge(config.hydra.launcher, dict(resources))
        return config

    def _launch(self, lists: Sequence[Sequence[str]], wave: Wave) -> list[DdoqError | None]:
        """Start jobs and wait for all of them; return the error of each one that says one."""
        config = self._config_with(wave.resources)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=config
        )
        launch = partial(launcher.launch, lists, initial_job_idx=0)
        submitted = _Submitted(self.config)
        if "Slurm" in submitted.target:
            from ddoq.sweeps.queue import Asked, follow

            results = follow(
                launch, submitted.jobs, Asked(OmegaConf.to_container(config.hydra.launcher), wave)
            )
        else:
            results = self._launch_here(launch, submitted)
        # A job that was killed says nothing, and the launcher stops at the first such. What is
        # missing in the store tells which points have failed, once the other jobs have ended, too.
        return [None] * len(lists) if results is None else [_error(result) for result in results]

    def _launch_here(
        self, launch: Callable[[], Sequence[JobReturn]], submitted: _Submitted
    ) -> Sequence | None:
        try:
            return launch()
        except Exception:
            if not submitted.wait():
                raise
            return None


def _error(result: JobReturn) -> DdoqError | None:
    from ddoq.config.explain import explain

    if result.status != JobStatus.FAILED:
        return None
    error = result._return_value  # the property would print the overrides, and raise
    return error if isinstance(error, DdoqError) else explain(error)


class _Submitted:
    """The jobs that submitit has started from now on."""

    def __init__(self, config: DictConfig):
        self.target = config.hydra.launcher._target_
        self.folder = Path(config.hydra.sweep.dir) / ".submitit"
        self.before = self._ids()

    def _ids(self) -> set[str]:
        return {file.parent.name for file in self.folder.glob("*/*_submitted.pkl")}

    def jobs(self) -> set[str]:
        """Return the numbers of the jobs, one for an array."""
        return {one.split("_")[0] for one in self._ids() - self.before}

    def wait(self) -> int:
        """Wait for jobs of this machine to end, one way or another; return how many there were."""
        ids = self._ids() - self.before if "submitit" in self.target else set()
        if ids:
            import submitit

            for job in [submitit.LocalJob(self.folder / "%j", one) for one in sorted(ids)]:
                job.wait()
        return len(ids)
