"""TAB behind ``+group@place=``: Hydra completes a group only where it stands by itself."""

from __future__ import annotations

import re
from pathlib import Path

#: Before Hydra's rule for bash, which takes out ``=`` in the same way: neither of them ends a word.
BASH = "COMP_WORDBREAKS=${COMP_WORDBREAKS//@}"
_WORD = re.compile(r"(\+?(\w+)@[\w.]+=)(\w*)")


def completions(line: str, conf: Path) -> list[str]:
    """Return what the last word of a command line can become, if it puts a choice in a place.

    Args:
        line: what has been typed.
        conf: folder of the groups.
    """
    words = line.split()
    match = _WORD.fullmatch(words[-1]) if words and not line.endswith(" ") else None
    if match is None:
        return []
    place, group, start = match.groups()
    names = sorted(file.stem for file in (conf / group).glob("*.yaml"))
    return [place + name for name in names if name.startswith(start)]
