"""A table of text, and the forms in which it leaves the house: terminal, Markdown, LaTeX.
(HTML is the page's.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_GAP = 2  # characters between two columns of a terminal


@dataclass(frozen=True, kw_only=True)
class View:
    """A table of text.

    Attributes:
        title: one line.
        frame: cells as text.
        num_left: how many columns, from the left, are words rather than numbers.
        bold: the numbers of rows that stand out.
        note: what a reader has to know, below the table.
        spare: columns that a narrow terminal does without, the first one first.
        name: of the table in a page.
        links: where the texts of some cells lead to.
    """

    title: str
    frame: pd.DataFrame
    num_left: int = 1
    bold: frozenset[int] = frozenset()
    note: str = ""
    spare: Sequence[str] = ()
    name: str = ""
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self.frame.columns)

    @property
    def rows(self) -> list[list[str]]:
        """The cells, row by row."""
        return self.frame.to_numpy().tolist()


def table_of(cells: Iterable[Mapping[str, str]], **about) -> View | None:
    """Return a view of rows that have the same columns, ``None`` without any;
    ``about`` is what else a view has.
    """
    frame = pd.DataFrame(list(cells))
    return None if frame.empty else View(frame=frame, **about)


# --- the terminal -----------------------------------------------------------------------------


def show(view: View, console: Console) -> None:
    """Print a table on the terminal, with its title and note as wide as the terminal is.

    No cell is cut or broken: where there is no room, first the spare columns are left out, then
    numbers that remain go on below, behind the same words.
    """
    width = console.width
    console.print(f"\n[bold]{escape(view.title)}[/]")
    for frame in _parts(_without_spare(view, width), view.num_left, width):
        # A name may be longer than the terminal is wide: it then goes on in the next line.
        needed = _width(frame)
        table = Table(box=None, pad_edge=False, width=needed if needed > width else None)
        for name in frame:
            left = name in view.columns[: view.num_left]
            table.add_column(escape(name), justify="left" if left else "right", no_wrap=True)
        for number, row in enumerate(frame.to_numpy().tolist()):
            table.add_row(*map(escape, row), style="bold" if number in view.bold else None)
        console.print(table, soft_wrap=True)
    if view.note:
        console.print(f"[dim]{escape(view.note)}[/]")


def _width(frame: pd.DataFrame) -> int:
    widths = [max(map(cell_len, [name, *frame[name]])) for name in frame]
    return sum(widths) + _GAP * (len(widths) - 1)


def _without_spare(view: View, width: int) -> pd.DataFrame:
    frame = view.frame
    for name in view.spare:
        if _width(frame) > width and name in frame:
            frame = frame.drop(columns=name)
    return frame


def _parts(frame: pd.DataFrame, num_left: int, width: int) -> Iterator[pd.DataFrame]:
    """Yield the columns of numbers that fit beside the words, then those that are left."""
    words, numbers = frame.columns[:num_left], list(frame.columns[num_left:])
    while numbers:
        fitting = 1
        while fitting < len(numbers) and _width(frame[[*words, *numbers[: fitting + 1]]]) <= width:
            fitting += 1
        yield frame[[*words, *numbers[:fitting]]]
        numbers = numbers[fitting:]


# --- files ------------------------------------------------------------------------------------


def markdown(view: View) -> str:
    """Return a Markdown table with its title and note."""
    rule = ["---" if place < view.num_left else "---:" for place in range(len(view.columns))]
    lines = [_pipes(map(_markdown_text, view.columns)), _pipes(rule)]
    for number, row in enumerate(view.rows):
        cells = map(_markdown_text, row)
        lines.append(
            _pipes(f"**{cell}**" if number in view.bold and cell else cell for cell in cells)
        )
    note = f"\n{_markdown_text(view.note)}\n" if view.note else ""
    return f"## {_markdown_text(view.title)}\n\n" + "\n".join(lines) + f"\n{note}"


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_text(text: str) -> str:
    """Return text that Markdown shows as it is: no markup, no HTML, no end of a cell."""
    for sign in "\\`*_|[]":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())


def latex(view: View) -> str:
    """Return a booktabs table."""
    left = min(view.num_left, len(view.columns))
    note = " " + _latex_text(view.note) if view.note else ""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex_text(view.title)}.{note}}}",
        rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(view.columns) - left)}}}",
        r"\toprule",
        _ampersands(view.columns),
        r"\midrule",
        *(_ampersands(row, number in view.bold) for number, row in enumerate(view.rows)),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _ampersands(cells: Iterable[str], bold: bool = False) -> str:
    texts = map(_latex_text, cells)
    shown = [rf"\textbf{{{text}}}" if bold and text else text for text in texts]
    # A bracket right behind \\ would be its optional argument.
    return " & ".join(f"{{{text}}}" if text.startswith("[") else text for text in shown) + r" \\"


_LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"±": r"$\pm$", "×": r"$\times$", "²": r"$^2$", "−": "$-$", "→": r"$\to$"},
        **{"–": "--", "…": r"\dots{}", "·": r"$\cdot$", "≥": r"$\ge$"},
        **{"<": r"\textless{}", ">": r"\textgreater{}"},
    }
)


def _latex_text(text: str) -> str:
    return " ".join(text.split()).translate(_LATEX)
