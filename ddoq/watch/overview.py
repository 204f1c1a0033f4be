"""From the files that runs and sweeps leave below ``outputs``
to what a watcher wants to know of them.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

from ddoq.errors import ConfigError, DataError, did_you_mean
from ddoq.pipeline.status import STATUS, SWEEP
from ddoq.utils.io import parse_json, read_json

#: The states of a run, in the order in which a watcher should look at them. A silent one says that
#: it is running, but has said nothing for ``_SILENT`` seconds.
STATES = ("failed", "silent", "interrupted", "running", "waiting", "done")
ENDED = ("failed", "interrupted", "done")
_SILENT = 60
_RECENT = 600  # seconds in which a run must have been heard of to be shown without being asked for


@dataclass(frozen=True, kw_only=True)
class RunState:
    """One run. What its files do not say is ``None`` or empty;
    times are in seconds, ``updated`` since 1970.

    ``done`` and ``total`` count artefacts over all stages, ``stage_done`` and ``stage_total`` those
    of the current stage; ``items`` is what the innermost progress bar counts, so far and in all,
    ``rate`` how many a second; ``left`` is an estimate for the current stage; ``top1`` the mean of
    the main arm on test.
    """

    label: str
    folder: Path
    state: str = "waiting"
    stage: str = ""
    title: str = ""
    done: int = 0
    total: int = 0
    stage_done: int = 0
    stage_total: int = 0
    what: str = ""
    items: tuple[int, int] | None = None
    rate: float | None = None
    left: float | None = None
    lock: str = ""
    host: str = ""
    started: float | None = None
    updated: float | None = None
    age: float | None = None
    error: tuple[str, str] | None = None
    top1: float | None = None

    @property
    def share(self) -> float:
        """How much of the run is done, in [0, 1],
        counting artefacts and the items of the one being computed.
        """
        if self.state == "done":
            return 1.0
        inside = self.items[0] / self.items[1] if self.items and self.items[1] else 0.0
        return min(1.0, (self.done + min(inside, 1.0)) / self.total) if self.total else 0.0


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Some runs at one moment.

    ``folder`` is where a page about them belongs, ``command`` what started them.
    """

    name: str
    folder: Path
    points: list[RunState]
    now: float
    command: str = ""
    created: float | None = None

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many runs are in each state that occurs."""
        counts = Counter(point.state for point in self.points)
        return {state: counts[state] for state in reversed(STATES) if counts[state]}

    @property
    def finished(self) -> bool:
        """Whether nothing more is to be expected."""
        return all(point.state in ENDED for point in self.points)

    @property
    def elapsed(self) -> float | None:
        """Seconds from the beginning until now, or until the last run ended."""
        starts = [self.created, *(point.started for point in self.points)]
        starts = [start for start in starts if start is not None]
        if not starts:
            return None
        end = (
            max((point.updated or 0 for point in self.points), default=0)
            if self.finished
            else self.now
        )
        return max(0.0, end - min(starts))


def find(outputs: Path, name: str | None = None) -> Callable[[], Overview]:
    """Return a function that reads, again and again, what ``name`` stands for.

    Args:
        outputs: ``paths.outputs`` of the runs.
        name: of a sweep or of a run, or the folder of one; ``None`` for the newest sweep, or if
            that has ended for whatever runs now.

    Raises:
        ConfigError: there is nothing of that name.
        DataError: there is nothing to be watched.
    """
    sweeps = {path.parent.name: path.parent for path in (outputs / "sweeps").glob(f"*/{SWEEP}")}
    runs = {path.name: path for path in (outputs / "runs").glob("*") if path.is_dir()}
    if name is None:
        return _newest(outputs, list(sweeps.values()))
    if name in sweeps or (Path(name) / SWEEP).is_file():
        return partial(_sweep, sweeps.get(name, Path(name)))
    if name in runs or (Path(name) / STATUS).is_file():
        return partial(_run, runs.get(name, Path(name)))
    raise ConfigError(
        f"there is no sweep and no run {name} below {outputs}",
        did_you_mean(name, [*sweeps, *runs])
        if sweeps or runs
        else "say with --outputs where they are",
    )


def _newest(outputs: Path, sweeps: list[Path]) -> Callable[[], Overview]:
    recent = partial(_recent, outputs)
    now = recent()
    newest = max(
        sweeps, key=lambda folder: (_sweep(folder).created or 0, folder.name), default=None
    )
    if newest is not None and (not _sweep(newest).finished or "running" not in now.counts):
        return partial(_sweep, newest)
    if not now.points:
        raise DataError(
            f"no run below {outputs / 'runs'} has said anything "
            f"in the last {_RECENT // 60} minutes",
            "start one, or name one that has ended: ddoq watch NAME",
        )
    return recent


def _sweep(folder: Path) -> Overview:
    """Read a sweep. Of a file that is no such description, what can be understood is taken."""
    record, now = _read(folder / SWEEP), time.time()
    points, until, seen = record.get("points"), record.get("until"), set()
    runs = folder.absolute().parents[1] / "runs"
    shown = []
    for point in points if isinstance(points, list) else []:
        run = point.get("run") if isinstance(point, dict) else None
        if isinstance(run, str) and run and run not in seen:
            seen.add(run)
            overrides = point.get("overrides")
            label = " ".join(map(str, overrides)) if isinstance(overrides, list) else ""
            shown.append(_point(runs / run, label or run, now, until))
    created = record.get("created")
    return Overview(
        name=folder.name,
        folder=folder,
        points=shown,
        now=now,
        command=str(record.get("command") or ""),
        created=created if _is_number(created) else None,
    )


def _run(folder: Path) -> Overview:
    now = time.time()
    return Overview(
        name=folder.name, folder=folder, points=[_point(folder, folder.name, now)], now=now
    )


def _recent(outputs: Path) -> Overview:
    now = time.time()
    points = [
        _point(path.parent, path.parent.name, now)
        for path in sorted((outputs / "runs").glob(f"*/{STATUS}"))
    ]
    return Overview(
        name="runs",
        folder=outputs,
        points=[p for p in points if p.age is not None and p.age < _RECENT],
        now=now,
    )


def _point(folder: Path, label: str, now: float, until: str | None = None) -> RunState:
    """Read a run. A status that cannot be understood is as good as none:
    the run has said nothing yet.

    One that has ended before the stage ``until`` waits for the sweep's next wave.
    """
    point = RunState(label=label, folder=folder)
    try:
        point = _understood(point, status := _read(folder / STATUS), now)
        return (
            replace(point, state="waiting")
            if point.state == "done" and until not in (None, status["until"])
            else point
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return point


def _understood(point: RunState, status: dict[str, Any], now: float) -> RunState:
    state, started, updated = status["state"], float(status["started"]), float(status["updated"])
    if state not in ("running", *ENDED) or not math.isfinite(started + updated):
        raise ValueError(state)
    age = max(0.0, now - updated)
    if state == "running" and age > _SILENT:
        state = "silent"
    stages, stage, items = status["stages"], status["stage"] or "", status["items"]
    counts = stages.get(stage, {"done": 0, "total": 0})
    point = replace(
        point,
        state=state,
        stage=str(stage),
        title=str(status["title"] or ""),
        done=sum(int(count["done"]) for count in stages.values()),
        total=sum(int(count["total"]) for count in stages.values()),
        stage_done=int(counts["done"]),
        stage_total=int(counts["total"]),
        what=str(items["what"]) if items else "",
        items=(int(items["done"]), int(items["total"])) if items else None,
        lock=str(status["waiting"] or ""),
        host=str(status["host"]),
        started=started,
        updated=updated,
        age=age,
        error=tuple(map(str, status["error"])) if status["error"] else None,
        top1=_accuracy(point.folder) if state == "done" else None,
    )
    if state != "running":
        return point
    rate = items["rate"] if items and _is_number(items["rate"]) and items["rate"] > 0 else None
    return replace(point, rate=rate, left=_left(point.items, rate, status["nodes"]))


def _left(
    items: tuple[int, int] | None, rate: float | None, nodes: dict[str, float]
) -> float | None:
    """Return the seconds that the current stage still takes, or ``None`` where nothing says so.

    Of the current node, the remaining items at their rate;
    of the others, what the finished ones took on average.
    """
    others = int(nodes["total"]) - int(nodes["done"]) - 1
    mean = float(nodes["seconds"]) / nodes["done"] if nodes["done"] else None
    current = (items[1] - items[0]) / rate if items and rate else mean
    if others < 0 or current is None or (others and mean is None):
        return None
    left = current + (others * mean if others else 0.0)
    return left if math.isfinite(left) else None


def _accuracy(folder: Path) -> float | None:
    """Return the mean top-1 of the main arm, which is the last one of the main table, on test."""
    path = folder / "results.jsonl"
    try:
        return _main_top1(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError):
        return None


@lru_cache(maxsize=4096)
def _main_top1(path: Path, changed: int) -> float | None:
    rows = [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["table"] == "main" and row["split"] == "test"]
    return (
        fmean(float(row["top1"]) for row in rows if row["arm"] == rows[-1]["arm"]) if rows else None
    )


def _read(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one where there is no such file or object."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
