"""TAB where Hydra has no answer: commands and what follows them,
and ``+group@place=``, since Hydra completes a group only where it stands by itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from ddoq.config.choices import files, groups, sections

#: Before Hydra's rule for bash, which takes out ``=`` in the same way: neither of them ends a word.
BASH = "COMP_WORDBREAKS=${COMP_WORDBREAKS//@}"
_PLACE = re.compile(r"(\+?(\w+)@[\w.]+=)(\w*)")
_OUTPUTS = re.compile(r"\s(?:--|paths\.)outputs[= ](\S+)")
_TOPICS = tuple(sorted(file.stem for file in (Path(__file__).parents[1] / "help").glob("*.md")))
#: What may follow a command, beside the names of runs and sweeps.
_FOLLOWING = {
    "report": ("best", "compare"),
    "store": ("ls", "du", "verify", "repair", "gc"),
    "watch": (),
    "help": (*_TOPICS, *groups(), *sections()),
}
_OF_RUNS = ("report", "watch")


def completions(line: str, commands: Collection[str] = ()) -> list[str] | None:
    """Return what the last word of a command line can become; ``None`` where Hydra knows.

    Args:
        line: what has been typed.
        commands: what may stand in the place of the first override.
    """
    _, *words = [*line.split(), *([""] if line.endswith(" ") else [])] or [""]
    if not words:
        return None
    *before, last = words
    if before and before[0] in _FOLLOWING and before[0] in commands:
        choices = [*_FOLLOWING[before[0]]] if len(before) == 1 else []
        choices += _names(line) if before[0] in _OF_RUNS else []
        return [choice for choice in choices if choice.startswith(last)]
    if match := _PLACE.fullmatch(last):
        place, group, start = match.groups()
        return [place + name for name in files(group) if name.startswith(start)]
    return None


def first_words(line: str, commands: Collection[str]) -> list[str]:
    """Return the commands that the only word of a command line can become, beside overrides."""
    words = line.split()[1:]
    if len(words) != 1 or line.endswith(" "):
        return []
    return [command for command in commands if command.startswith(words[0])]


def _names(line: str) -> list[str]:
    """Return the names of sweeps and runs below the outputs folder of a command line."""
    match = _OUTPUTS.search(line)
    outputs = Path(match.group(1) if match else "outputs").expanduser()
    return [path.name for kind in ("sweeps", "runs") for path in sorted(outputs.glob(f"{kind}/*"))]
