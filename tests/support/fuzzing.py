"""What the fuzz tests share: how many examples, what may come of one, and damaged files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddoq.errors import DdoqError


def examples(few: int, many: int):
    """Parametrize a test with ``num``: few examples by default, the same ones each time;
    many with ``-m slow``.
    """
    return pytest.mark.parametrize("num", [few, pytest.param(many, marks=pytest.mark.slow)])


def settings_of(num: int, **others: Any) -> settings:
    """Return settings for so many examples. A failure prints the blob that repeats it."""
    health = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(
        max_examples=num,
        deadline=None,
        derandomize=True,
        print_blob=True,
        database=None,
        suppress_health_check=health,
        **others,
    )


def holds(num: int, *strategies: st.SearchStrategy, **options: Any) -> Callable:
    """Call a function, at once, with so many examples of the strategies."""

    def run(function: Callable) -> Callable:
        settings_of(num, **options)(given(*strategies)(function))()
        return function

    return run


@contextmanager
def two_lines_or_nothing() -> Iterator[None]:
    """Let pass what succeeds, and a DdoqError of two lines. All else is a failure."""
    try:
        yield
    except DdoqError as error:
        assert len(str(error).splitlines()) == 2, str(error)


_DAMAGE = st.tuples(
    st.sampled_from(["flip", "cut", "insert", "repeat", "replace"]),
    st.integers(0, 2**20),
    st.one_of(
        st.binary(min_size=1, max_size=8),
        st.sampled_from(
            [
                b"\xff" * 8,
                b"\x00" * 8,
                b"9" * 18,
                b"-1",
                b"[" * 3000,
                b"NaN",
                b"1e999",
                b"\x00\x00\x01\x00",
            ]
        ),
    ),
)


@st.composite
def damaged(draw: Callable, whole: bytes) -> bytes:
    """Damage a file: flip bits, insert, repeat or replace bytes, or cut the end,
    in one to four places.
    """
    data = whole
    for kind, at, other in draw(st.lists(_DAMAGE, min_size=1, max_size=4)):
        # half of the damage falls into the first and the last bytes,
        # where formats keep their headers
        place = (
            at % (len(data) + 1)
            if at % 2
            else (at // 2) % min(len(data) + 1, 64) * (1 if at % 4 else -1)
        )
        place %= len(data) + 1
        before, after = data[:place], data[place:]
        data = {
            "flip": before + bytes([after[0] ^ other[0]] if after else []) + after[1:],
            "cut": before,
            "insert": before + other + after,
            "repeat": before + after[: len(other) * 7] + after,
            "replace": before + other + after[len(other) :],
        }[kind]
    return data
