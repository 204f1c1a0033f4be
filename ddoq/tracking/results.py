"""What a tracker is told of a run: plain data, so that it needs to know neither store nor graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Student:
    """One training of a student.

    Args:
        key: of its artefact: the same training has the same key in every run.
        name: readable, e.g. ``ddoq-ipc10-s0``.
        config: what it was trained on and how.
        curve: one mapping per evaluation: ``step``, ``top1`` and, where it was recorded,
            the training ``loss``.
        summary: its measures at the end.
    """

    key: str
    name: str
    config: Mapping[str, Any]
    curve: Sequence[Mapping[str, float]]
    summary: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class TrackedArtefact:
    """A folder of the store.

    Args:
        key: of its content.
        name: readable; different contents may share it.
        kind: ``codebook`` or ``distilled-dataset``.
        folder: holds its files, which never change.
        metadata: what it was made from.
    """

    key: str
    name: str
    kind: str
    folder: Path
    metadata: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Results:
    """All of a finished run.

    Args:
        rows: one per student, as in ``results.jsonl``.
        summary: flat metrics, e.g. ``test/ddoq/top1_mean``.
        columns: known only now and yet good to filter runs by: stage keys (``key``), what the rules
            of the protocol came to (``derived``).
        students: of the main table.
        codebook: of the main arm; ``None`` where its images were not made from points.
        distilled: the main arm's images, made from ``codebook``.
        figures: PNG files by name.
    """

    rows: Sequence[Mapping[str, Any]]
    summary: Mapping[str, float]
    columns: Mapping[str, Mapping[str, Any]]
    students: Sequence[Student]
    codebook: TrackedArtefact | None
    distilled: TrackedArtefact
    figures: Mapping[str, Path]
