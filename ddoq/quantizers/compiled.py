"""The compiler of the quantizers' loops:
numba's, which keeps its code on the disk where there is a place for it.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import njit


def compiled(fastmath: bool | set[str] = False) -> Callable:
    """Return the decorator of a loop that releases the GIL.

    It is compiled for the dtypes and numbers of axes that it is called with: those that its
    docstring names.

    Args:
        fastmath: see ``numba.njit``.
    """

    def decorate(function: Callable) -> Callable:
        try:
            return njit(cache=True, nogil=True, fastmath=fastmath)(function)
        except RuntimeError:
            # Neither the installed files nor the home can be written: compiled at every start.
            return njit(nogil=True, fastmath=fastmath)(function)

    return decorate
