"""``ddoq help``: topics, which GitHub shows as well, and what each group of components offers."""

from __future__ import annotations

import re
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.syntax import Syntax

from ddoq.config.choices import conf_dir, groups, sections
from ddoq.errors import ConfigError, did_you_mean
from ddoq.help.components import show_choice, show_group

FOLDER = Path(__file__).parent
_MOST_COLUMNS = 80
_FOOT = """
ddoq help quantizer         what there is of a group, here of quantizers
ddoq help quantizer=kmeans  the options of a choice
ddoq help trainer           a section of the configuration
ddoq --help                 the commands, groups and choices"""
_LINK_TO_A_FILE = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]+\)")


def topics() -> dict[str, str]:
    """Return what each topic is about, by its name: a file begins ``# Name: what it is about``."""
    files = sorted(FOLDER.glob("*.md"))
    lines = {file.stem: file.read_text(encoding="utf-8").partition("\n")[0] for file in files}
    return {name: line.partition(": ")[2] for name, line in lines.items()}


def main(arguments: list[str]) -> int:
    """Show the topics, groups, choices and sections that are named, or the list of topics; return
    the exit code.

    Raises:
        ConfigError: there is none of that name.
    """
    about = topics()
    names = [word for word in arguments if word not in ("--help", "-h")]
    if not names:
        print("ddoq help TOPIC\n")
        print(*(f"  {name:<17}{line}" for name, line in about.items()), sep="\n")
        print(_FOOT)
    console = Console(highlight=False)
    console.width = min(_MOST_COLUMNS, console.width)
    for name in names:
        group, is_choice, choice = name.partition("=")
        if group in groups():
            show_choice(group, choice, console) if is_choice else show_group(group, console)
        elif name.lower() in about:
            _show_topic(name.lower(), console)
        elif name in sections():
            _show_section(name, console)
        else:
            cause = f"help: there is no topic '{name}'"
            raise ConfigError(cause, did_you_mean(group.lower(), [*about, *groups(), *sections()]))
    return 0


def _show_topic(name: str, console: Console) -> None:
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    text = _LINK_TO_A_FILE.sub(r"\1", text)  # a terminal cannot follow it
    console.print(Markdown(text, code_theme="ansi_dark", hyperlinks=False))


def _show_section(name: str, console: Console) -> None:
    lines = Syntax(
        sections()[name], "yaml", theme="ansi_dark", background_color="default", word_wrap=True
    )
    console.print(lines)
    console.print(f"\n[dim]{conf_dir() / 'config.yaml'}[/]", soft_wrap=True)
