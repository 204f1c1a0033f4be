"""What a report is made of: groups of rows, and sections, which say something of them;
and how it leaves: as a page and on the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ddoq.report.chart import Chart
from ddoq.report.groups import Group, distinct
from ddoq.report.view import View, show
from ddoq.utils.console import console
from ddoq.utils.io import write_text
from ddoq.utils.pages import templates

if TYPE_CHECKING:
    from ddoq.report.pictures import Strip  # with which come libraries for images


#: A training loss above this share of that of knowing nothing is far from its floor.
_UNLEARNED = 0.5


@dataclass(frozen=True, kw_only=True)
class Report:
    """Rows, and what else is known about the runs that they are of.

    Attributes:
        title: of the page.
        groups: of all rows.
        folder: of the page.
    """

    title: str
    groups: Sequence[Group]
    folder: Path

    @property
    def main_arm(self) -> str:
        """The name of the arm that stands out; empty where none does."""
        return ""

    @cached_property
    def shown(self) -> list[Group]:
        """The groups, those of the same students once."""
        return distinct(self.groups)

    @cached_property
    def split(self) -> str:
        """The split on which accuracies are reported."""
        splits = [group["split"] for group in self.shown]
        return "test" if "test" in splits else splits[0]

    @property
    def measured(self) -> list[Group]:
        """The groups that are shown, on that split."""
        return self.of_split(self.split)

    def of_split(self, split: str) -> list[Group]:
        """Return the groups that are shown, on a split."""
        return [group for group in self.shown if group["split"] == split]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        text: what a reader has to know, in paragraphs.
        views: tables.
        figures: charts, with what is said above each.
        strips: pictures.
        folded: texts as they are, by what they are called.
        is_wide: takes the whole width of a page.
        is_folded: has to be opened.
        is_printed: the terminal shows its tables, too.
    """

    title: str
    text: Sequence[str] = ()
    views: Sequence[View | None] = ()
    figures: Sequence[tuple[str, Chart]] = ()
    strips: Sequence[Strip] = ()
    folded: Sequence[tuple[str, str]] = ()
    is_wide: bool = False
    is_folded: bool = False
    is_printed: bool = False

    @cached_property
    def tables(self) -> list[View]:
        """The tables that there are."""
        return [view for view in self.views if view]


#: Says something of a report, or has nothing to say.
Ask = Callable[[Report], Section | None]


def asked(report: Report, sections: Sequence[Ask]) -> list[Section]:
    """Return what the sections have to say."""
    return [section for ask in sections if (section := ask(report))]


def under_trained(groups: Sequence[Group]) -> list[str]:
    """Return a warning that names the arms whose students were trained too little to say much."""
    shares = {
        group["name"]: group["unlearned"]
        for group in groups
        if group["unlearned"] is not None and group["unlearned"] > _UNLEARNED
    }
    if not shares:
        return []
    return [
        f"Under-trained: {', '.join(shares)}. The training loss ended at up to "
        f"{100 * max(shares.values()):.0f} % of that of knowing nothing, and could go to 0: "
        "train longer before arms are compared."
    ]


def write_page(
    report: Report,
    sections: Sequence[Section],
    lead: str,
    about: Sequence[str],
    warnings: Sequence[str],
) -> Path:
    """Write ``report.html`` into the report's folder; return its path.

    Args:
        report: what it is about.
        sections: what they say, in order.
        lead: the result in one sentence.
        about: what was looked at, in a few words each.
        warnings: what a reader must not miss.
    """
    path = report.folder / "report.html"
    page = templates(Path(__file__).parent).get_template("page.html")
    write_text(
        path,
        page.render(report=report, sections=sections, lead=lead, about=about, warnings=warnings),
    )
    return path


def print_tables(sections: Sequence[Section]) -> None:
    """Print the tables of the sections that are for the terminal, too."""
    for section in sections:
        for view in section.tables if section.is_printed else ():
            show(view, console)
