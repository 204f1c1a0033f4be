"""From what a user names (runs, folders, sweeps, queries) to rows of results.

What is damaged is named and left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ddoq.config.names import NOT_IDENTITY
from ddoq.errors import DataError, did_you_mean
from ddoq.pipeline.keys import digest, settled
from ddoq.pipeline.status import SWEEP
from ddoq.report.groups import Row
from ddoq.utils.io import parse_json, read_json

_RESULTS = ("results.jsonl", "validation.jsonl")
#: What a row must say: without it nobody knows what was measured.
_REQUIRED = {"dataset": str, "arm": str, "protocol": str, "student": str, "ipc": int, "seed": int}
#: What rows of old runs may lack although tables are made of it.
_DEFAULTS = {"split": "test", "table": "main", "value": ""}


@dataclass(frozen=True)
class Query:
    """A field of rows and the values that it may have, as the user wrote them."""

    key: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Query:
        """Read ``key=value[,value]``. Raises DataError for anything else."""
        key, _, values = text.partition("=")
        if not key or not values:
            raise DataError(
                f"report: '{text}' is no query",
                "write key=value or key=value,value, e.g. ipc=10,50",
            )
        return cls(key, tuple(values.split(",")))

    def __str__(self) -> str:
        return f"{self.key}={','.join(self.values)}"

    def keep(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows with one of the values.

        Raises:
            DataError: no row has such a field, or none has one of the values:
                a slip would else shrink a table without a word.
        """
        fields = {name for row in rows for name in row}
        if self.key not in fields:
            raise DataError(f"report: rows have no '{self.key}'", did_you_mean(self.key, fields))
        written = [_spelling(row.get(self.key)) for row in rows]
        for value in self.values:
            if _spelling(value) not in written:
                raise DataError(
                    f"report: no result has {self.key}={value}",
                    did_you_mean(value, filter(None, written)),
                )
        wanted = {_spelling(value) for value in self.values}
        return [row for row, own in zip(rows, written, strict=True) if own in wanted]


def _spelling(value: Any) -> str:
    """Return a value as text, numbers in one spelling: 0.20 is 0.2, 10.0 is 10;
    ``none`` for what is not known.
    """
    if value is None or value == "null":
        return "none"
    try:
        return f"{float(value):.12g}"
    except (TypeError, ValueError):
        return str(value)


@dataclass(kw_only=True)
class Selection:
    """Rows of a set of runs; each says in ``run`` which folder it comes from.

    ``home`` is where a report of it is written unless the user says otherwise.
    """

    title: str
    home: Path
    rows: list[Row]
    runs: list[Path]
    warnings: list[str] = field(default_factory=list)


def select(what: Sequence[str], outputs: Path) -> Selection:
    """Return the rows of what the user named;
    all runs below ``outputs`` where only queries are given.

    Args:
        what: run folders or their names, folders of runs, sweeps' folders or names,
            queries (``ipc=10,50``).
        outputs: where ``runs`` and ``sweeps`` are.

    Raises:
        DataError: something of it does not exist, or nothing is left.
    """
    queries = [Query.parse(word) for text in what if is_query(text) for word in text.split()]
    places = [text for text in what if not is_query(text)]
    warnings: list[str] = []
    runs = list(dict.fromkeys(run for place in places for run in _find(place, outputs, warnings)))
    runs = runs if places else _runs_in(outputs / "runs")
    if not runs:
        raise DataError(
            f"report: no results in {', '.join(places) or outputs / 'runs'}",
            "; ".join(warnings)
            or "finish a run with `ddoq`, or name another folder with --outputs",
        )
    rows = read_runs(runs, warnings)
    for query in queries:
        rows = query.keep(rows)
    if not rows:
        raise DataError(
            "report: no results are left", "; ".join(warnings) or "name more runs, or ask for less"
        )
    sweep = _sweep_folder(places[0], outputs) if len(places) == 1 and not queries else None
    names = [run.name for run in runs]
    home = sweep or outputs / "reports" / digest([sorted(names), sorted(map(str, queries))])
    title = " ".join(what) or f"all runs in {outputs / 'runs'}"
    kept = {row["run"] for row in rows}
    return Selection(
        title=sweep.name if sweep else title,
        home=home,
        rows=rows,
        runs=[run for run in runs if run.name in kept],
        warnings=warnings,
    )


def is_query(text: str) -> bool:
    """Tell whether an argument is ``key=value`` and no path."""
    return "=" in text and not Path(text).exists()


def read_runs(runs: Iterable[Path], warnings: list[str]) -> list[Row]:
    """Return the rows of run folders; append one line to ``warnings`` for each
    with something damaged or old.
    """
    rows, old = [], 0
    for run in runs:
        own, damage = _read_run(run) if is_run(run) else ([], ["no results yet"])
        if damage:
            warnings.append(f"{run}: {'; '.join(damage)}: left out")
        old += any("group_key" not in row for row in own)
        rows += own
    if old:
        warnings.append(
            f"{old} of the runs are from before rows said all that is shown here: "
            "what they lack is a dash; the same command again completes them from the store"
        )
    return rows


def _read_run(run: Path) -> tuple[list[Row], list[str]]:
    """Return the rows of one run folder and what of it is damaged."""
    rows, damage = [], []
    for name in _RESULTS:
        try:
            lines = (run / name).read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            continue
        except OSError as error:
            damage.append(f"{name} cannot be read ({error.strerror})")
            continue
        parsed = [_parse(line) for line in lines]
        bad = [str(number) for number, row in enumerate(parsed, 1) if row is None]
        if bad:
            damage.append(f"{name}, line {', '.join(bad[:5])}{' …' if len(bad) > 5 else ''}")
        rows += [row | {"run": run.name} for row in parsed if row is not None]
    if any("group_key" not in row for row in rows):
        setting = _setting(run)
        rows = [row if "group_key" in row else row | {"setting": setting} for row in rows]
    return rows, damage


def _parse(line: str) -> Row | None:
    """Return a row, or ``None`` for what is none."""
    try:
        row = parse_json(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or any(isinstance(value, list | dict) for value in row.values()):
        return None
    top1 = row.get("top1")
    is_whole = all(type(row.get(name)) is kind for name, kind in _REQUIRED.items())
    is_measured = type(top1) in (int, float) and 0 <= top1 <= 1
    return _DEFAULTS | row if is_whole and is_measured else None


@cache
def read_config(run: Path) -> dict[str, Any]:
    """Return the configuration of a run; empty where it is missing or damaged."""
    try:
        text = (run / "config.yaml").read_text(encoding="utf-8")
        config = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


def _setting(run: Path) -> str:
    """Return what old rows do not say themselves:
    all of a run's configuration that changes a student, no seed.

    Without a configuration nobody knows, and the run shares its means with no other.
    """
    config = {
        name: part
        for name, part in read_config(run).items()
        if name not in (*NOT_IDENTITY, "seed", "measure")
    }
    if not config:
        return str(run)
    return digest(
        settled(config | {"protocol": {**config.get("protocol", {}), "num_seeds": None}}, "run")
    )


# --- places -----------------------------------------------------------------------------------


def _find(place: str, outputs: Path, warnings: list[str]) -> list[Path]:
    """Return the run folders that a path or a name stands for."""
    if sweep := _sweep_folder(place, outputs):
        return _runs_of(sweep, warnings)
    for folder in (Path(place), outputs / "runs" / place):
        if is_run(folder):
            return [folder]
        if folder.is_dir():
            return _runs_in(folder) or _runs_in(folder / "runs")
    names = names_in(outputs)
    raise DataError(
        f"report: there is no run, sweep or folder '{place}'",
        did_you_mean(place, names)
        if names
        else f"there are none in {outputs}: name another folder with --outputs",
    )


def names_in(outputs: Path) -> list[str]:
    """Return the names of the sweeps and runs below an outputs folder."""
    sweeps = [path.parent.name for path in sorted(outputs.glob(f"sweeps/*/{SWEEP}"))]
    return sweeps + [run.name for run in _runs_in(outputs / "runs")]


def is_run(folder: Path) -> bool:
    """Tell whether a folder has results."""
    return any((folder / name).exists() for name in _RESULTS)


def _runs_in(folder: Path) -> list[Path]:
    """Return the run folders directly below a folder."""
    return sorted(child for child in folder.iterdir() if is_run(child)) if folder.is_dir() else []


def _sweep_folder(place: str, outputs: Path) -> Path | None:
    """Return the folder of a sweep, by path or name; ``None`` for what is no sweep."""
    folders = (Path(place), outputs / "sweeps" / place)
    return next((folder for folder in folders if (folder / SWEEP).is_file()), None)


def read_sweep(sweep: Path) -> dict[str, Any]:
    """Return what a sweep's folder says about it; empty for any other folder.

    Raises DataError if it is damaged.
    """
    path = sweep / SWEEP
    try:
        sweep_record = read_json(path)
        if all(isinstance(point["run"], str) for point in sweep_record["points"]):
            return sweep_record
        cause = "a point names no run"
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        cause = f"{type(error).__name__}: {error}"
    raise DataError(
        f"report: {path} is damaged ({cause})",
        "start the sweep again: finished points are free; or name its runs",
    )


def _runs_of(sweep: Path, warnings: list[str]) -> list[Path]:
    """Return the run folders of a sweep that have results, and warn of those that have none yet."""
    names = dict.fromkeys(point["run"] for point in read_sweep(sweep)["points"])
    runs = [sweep.parent.parent / "runs" / name for name in names]
    missing = [run.name for run in runs if not is_run(run)]
    if missing:
        warnings.append(
            f"{len(missing)} of {len(runs)} points of sweep {sweep.name} have no results yet: "
            f"{', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}"
        )
    return [run for run in runs if is_run(run)]
