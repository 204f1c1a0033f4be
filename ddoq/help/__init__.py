"""``ddoq help``: the topics, and one of them on the terminal. GitHub shows the same files."""

from __future__ import annotations

import re
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from ddoq.errors import ConfigError, did_you_mean

FOLDER = Path(__file__).parent
_MOST_COLUMNS = 80
_LINK_TO_A_FILE = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]+\)")


def topics() -> dict[str, str]:
    """Return what each topic is about, by its name: a file begins ``# Name: what it is about``."""
    files = sorted(FOLDER.glob("*.md"))
    lines = {file.stem: file.read_text(encoding="utf-8").partition("\n")[0] for file in files}
    return {name: line.partition(": ")[2] for name, line in lines.items()}


def main(arguments: list[str]) -> int:
    """Show the topics that are named, or the list of all; return the exit code.

    Raises:
        ConfigError: there is no such topic.
    """
    about = topics()
    names = [word.lower() for word in arguments if word not in ("--help", "-h")]
    for name in names:
        if name not in about:
            raise ConfigError(f"help: there is no topic '{name}'", did_you_mean(name, about))
    if not names:
        print("ddoq help TOPIC\n")
        print(*(f"  {name:<17}{line}" for name, line in about.items()), sep="\n")
        print("\nddoq --help lists commands and choices, ddoq --cfg job every key.")
    console = Console(highlight=False)
    console.width = min(_MOST_COLUMNS, console.width)
    for name in names:
        text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
        text = _LINK_TO_A_FILE.sub(r"\1", text)  # a terminal cannot follow it
        console.print(Markdown(text, code_theme="ansi_dark", hyperlinks=False))
    return 0
