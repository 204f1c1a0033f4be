"""TAB behind ``+group@place=``: Hydra completes a group only where it stands by itself."""

from __future__ import annotations

import re

from ddoq.config.choices import files

#: Before Hydra's rule for bash, which takes out ``=`` in the same way: neither of them ends a word.
BASH = "COMP_WORDBREAKS=${COMP_WORDBREAKS//@}"
_WORD = re.compile(r"(\+?(\w+)@[\w.]+=)(\w*)")


def completions(line: str) -> list[str]:
    """Return what the last word of a command line can become, if it puts a choice in a place.

    Args:
        line: what has been typed.
    """
    words = line.split()
    match = _WORD.fullmatch(words[-1]) if words and not line.endswith(" ") else None
    if match is None:
        return []
    place, group, start = match.groups()
    return [place + name for name in files(group) if name.startswith(start)]
