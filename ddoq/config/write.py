"""``make options``: every option into the files of ``conf/``, with what constructors say of it.

``#:`` begins the words of a docstring, which this rewrites; what else a file says stays: its head,
values that are set on purpose, their order, and comments of people. Files that take their options
over from another choice are left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from textwrap import wrap

import yaml

from ddoq.config.choices import COMPONENTS, files, targets
from ddoq.config.constructors import MISSING, Constructor, Option, constructor

_WIDTH = 100
_MOST_CHOICES = 6  # that a comment lists


def written(text: str, taken: Constructor) -> str:
    """Return the text of a choice's file with all its options.

    Args:
        text: as it is; the options stand beside ``_target_``.
        taken: what it instantiates.
    """
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if "_target_:" in line)
    indent = re.match(" *", lines[start])[0]
    block = list(takewhile(lambda line: line.startswith(indent), lines[start + 1 :]))
    rest = lines[start + 1 + len(block) :]
    options = {name: option for name, option in taken.options.items() if name != "name"}
    return "\n".join([*lines[: start + 1], *_block(block, options, indent), *rest]) + "\n"


def _block(lines: list[str], options: Mapping[str, Option], indent: str) -> Iterator[str]:
    """Yield the lines of a mapping, those of the options that it leaves out at the end."""
    there, last = _entries(lines, indent)
    for name, (comments, entry) in there.items():
        yield from comments
        yield from (
            _entry(entry, options[name], indent) if name in options and name != "name" else entry
        )
    for name, option in options.items():
        if name not in there and option.default != MISSING:
            yield from _entry([f"{indent}{name}:{_value(option)}"], option, indent)
    yield from last


def _entries(
    lines: list[str], indent: str
) -> tuple[dict[str, tuple[list[str], list[str]]], list[str]]:
    """Return the comments above each key of a mapping and its lines, without a docstring's words;
    and the comments behind the last one.
    """
    entries: dict[str, tuple[list[str], list[str]]] = {}
    comments: list[str] = []
    for line in lines:
        key = re.match(rf"{indent}(\w+):", line)
        if key:
            entries[key[1]] = comments, [re.sub(r" +#: .*$", "", line)]
            comments = []
        elif line.startswith(f"{indent}#"):
            comments += [] if line.startswith(f"{indent}#:") else [line]
        else:
            _, entry = entries[next(reversed(entries))]
            entry += [*comments, line]
            comments = []
    return entries, comments


def _entry(lines: list[str], option: Option, indent: str) -> Iterator[str]:
    """Yield the lines of an option with what its constructor says, unless somebody says something
    of its value.
    """
    first, *inner = lines
    comment = [] if " # " in first or not option.words else _comment(first, _short(option), indent)
    yield from comment or [first]
    if isinstance(option.kind, Constructor):
        yield from _block(inner, option.kind.options, f"{indent}  ")
    else:
        yield from inner


def _comment(line: str, words: str, indent: str) -> list[str]:
    """Return a line with words behind it, or above it where they take more room."""
    if len(whole := f"{line}  #: {words}") <= _WIDTH:
        return [whole]
    start = f"{indent}#: "
    return [*wrap(words, _WIDTH, initial_indent=start, subsequent_indent=start), line]


def _short(option: Option) -> str:
    """Return the first sentence of what a docstring says, with the choices it does not name."""
    sentence = re.split(r"\.(?: (?=[A-Z])|$)", option.words)[0]
    choices = option.choices
    if len(choices) > _MOST_CHOICES or all(choice in option.words for choice in choices):
        return sentence
    return f"{sentence}: {', '.join(choices[:-1])} or {choices[-1]}"


def _value(option: Option) -> str:
    """Return a default as it stands behind a colon."""
    if isinstance(option.kind, Constructor):
        return ""
    text = yaml.safe_dump(option.default, default_flow_style=True, width=_WIDTH * 10)
    return f" {text.strip().removesuffix('...').strip()}"


def main() -> None:
    """Write the files of all components."""
    for group in COMPONENTS:
        for choice, target in targets(group).items():
            file = files(group)[choice]
            text = file.read_text(encoding="utf-8")
            file.write_text(written(text, constructor(target)), encoding="utf-8")


if __name__ == "__main__":
    main()
