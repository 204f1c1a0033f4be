"""A table of text, and the forms in which it leaves the house: terminal, Markdown, LaTeX.
(HTML is a template's.)
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_LEGIBLE = 9  # characters that a column of words keeps in a narrow terminal


@dataclass(frozen=True)
class View:
    """A table of text.

    Attributes:
        title: one line.
        columns: their names.
        rows: cells as text, one per column.
        num_left: how many columns, from the left, are words rather than numbers.
        bold: the numbers of rows that stand out.
        note: what a reader has to know, below the table.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    num_left: int = 1
    bold: frozenset[int] = field(default_factory=frozenset)
    note: str = ""


def show(view: View, console: Console) -> None:
    """Print a table on the terminal, with its title and note as wide as the terminal is."""
    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(view.columns):
        left = place < view.num_left
        width = max(map(len, [name, *(row[place] for row in view.rows)]))
        table.add_column(
            escape(name),
            justify="left" if left else "right",
            no_wrap=not left,
            overflow="fold",
            min_width=min(width, _LEGIBLE),
        )
    for number, row in enumerate(view.rows):
        table.add_row(*map(escape, row), style="bold" if number in view.bold else None)
    console.print(f"\n[bold]{escape(view.title)}[/]")
    console.print(table)
    if view.note:
        console.print(f"[dim]{escape(view.note)}[/]")


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


def _pipes(cells) -> str:
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


def _ampersands(cells: list[str], bold: bool = False) -> str:
    shown = [
        rf"\textbf{{{_latex_text(cell)}}}" if bold and cell else _latex_text(cell) for cell in cells
    ]
    # A bracket right behind \\ would be its optional argument.
    return " & ".join(f"{{{text}}}" if text.startswith("[") else text for text in shown) + r" \\"


_LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{
            "±": r"$\pm$",
            "×": r"$\times$",
            "²": r"$^2$",
            "−": "$-$",
            "→": r"$\to$",
            "–": "--",
            "…": r"\dots{}",
        },
        **{"<": r"\textless{}", ">": r"\textgreater{}", "·": r"$\cdot$", "≥": r"$\ge$"},
    }
)


def _latex_text(text: str) -> str:
    return " ".join(text.split()).translate(_LATEX)
