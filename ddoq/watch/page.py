"""The live view as one self-contained page that loads itself again while something runs."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from ddoq.utils.io import write_text
from ddoq.watch import wording
from ddoq.watch.overview import STATES, Overview, RunState, find

PAGE = "live.html"
_RELOAD = 5  # seconds


def write_page(outputs: Path, name: str, last: bool = False) -> Path:
    """Write ``live.html`` of a sweep or a run into its folder; return its path.

    Args:
        outputs: ``paths.outputs`` of the runs.
        name: of the sweep or the run.
        last: the page will not be written again, so that it need not be loaded again.

    Raises:
        ConfigError: there is nothing of that name.
        OSError: the page cannot be written.
    """
    return page_of(find(outputs, name)(), last)


def page_of(view: Overview, last: bool = False) -> Path:
    """Write ``live.html`` of a view; see ``write_page``."""
    path = view.folder / PAGE
    write_text(path, _render(view, reload=None if last or view.finished else _RELOAD))
    return path


class LivePage:
    """Keeps ``live.html`` of a sweep or a run up to date during a ``with`` block,
    and writes it a last time at its end.

    A page that cannot be written is no reason to end what it shows: all errors are passed over.

    Args:
        outputs: ``paths.outputs`` of the runs.
        name: of the sweep or the run.
        interval: seconds between two versions.
    """

    def __init__(self, outputs: Path, name: str, interval: float = 3.0):
        self.outputs, self.name, self.interval = outputs, name, interval
        self._end = threading.Event()
        self._writer = threading.Thread(target=self._keep_writing, name="live page", daemon=True)

    def __enter__(self) -> LivePage:
        self._writer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._writer.join()
        self._write(last=True)

    def _keep_writing(self) -> None:
        while not self._end.is_set():
            self._write()
            self._end.wait(self.interval)

    def _write(self, last: bool = False) -> None:
        with suppress(Exception):
            write_page(self.outputs, self.name, last)


def _render(view: Overview, reload: int | None) -> str:
    from ddoq.utils.pages import templates  # jinja2 is for those who want the page

    environment = templates(Path(__file__).parent)
    for shown in (wording.accuracy, wording.doing, wording.duration, wording.speed):
        environment.filters[shown.__name__] = shown
    return environment.get_template("live.html").render(
        view=view,
        reload=reload,
        states=[state for state in reversed(STATES) if state in view.counts],
        totals=wording.totals(view),
        host=wording.common_host(view),
        links={
            point.folder: link for point in view.points if (link := _report(point, view.folder))
        },
        written=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(view.now)),
    )


def _report(point: RunState, folder: Path) -> str | None:
    """Return the way from a folder to the run's report, if it has one."""
    report = point.folder / "report.html"
    return quote(os.path.relpath(report, folder)) if report.is_file() else None
