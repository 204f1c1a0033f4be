"""``key=value[,value]``: which rows are meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ddoq.errors import DataError, did_you_mean


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
                known = {one for one in written if one}
                raise DataError(
                    f"report: no result has {self.key}={value}", did_you_mean(value, known)
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
