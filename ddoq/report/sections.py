"""What rows alone say, of one run or of many: each section is a function of a report
that returns what it has to say, or nothing.
"""

from __future__ import annotations

from pathlib import Path

from ddoq.report import figures, tables
from ddoq.report.groups import values_of
from ddoq.report.page import Report, Section
from ddoq.report.published import beside
from ddoq.report.view import table_of

_GLOSSARY = Path(__file__).parents[1] / "help" / "glossary.md"
#: What comparisons change, with the titles of their tables.
COMPARED = {
    "student": "Other students",
    "teacher": "Other teachers, soft labels",
    "labels": "Kinds of labels",
    "augmentation": "With and without augmentation",
    "pixels": "A method's floats, and its PNGs, rounded and clipped",
}
#: A training loss above this share of that of knowing nothing is far from its floor.
_UNLEARNED = 0.5


def accuracy(report: Report) -> Section:
    """The table of arms, and their accuracies with every student as a dot."""
    names = {group["name"] for group in report.measured}
    is_one_setting = len(names) == len(report.measured) > 1
    figure = is_one_setting and figures.accuracy_figure(report.measured, report.split)
    return Section(
        title="Accuracy",
        views=[tables.accuracy_view(report.shown, report.split, report.main_arm)],
        figures=[("", figure)] if figure else [],
        is_wide=True,
        is_printed=True,
    )


def comparisons(report: Report) -> Section | None:
    """The same distilled sets under other students, teachers, labels, augmentations, as PNGs."""
    views = [
        view
        for table in COMPARED
        for view in tables.pivots(
            [group for group in report.groups if group["table"] == table],
            *("arm", "value"),
            least=1,
            heading=COMPARED[table],
            name=f"pivot-{table}",
            main_arm=report.main_arm,
        )
    ]
    if not views:
        return None
    return Section(
        title="Comparisons",
        text=["The same distilled sets; the full data are trained on by each student."],
        views=views,
        is_wide=True,
        is_printed=bool(report.main_arm),
    )


def published(report: Report) -> Section | None:
    """Numbers of papers where all is the same."""
    view = beside(report.measured)
    return view and Section(title=view.title, views=[view], is_wide=True, is_printed=True)


def cost(report: Report) -> Section:
    """What every group cost."""
    view = tables.cost_view(report.measured, report.main_arm)
    return Section(title="Cost", views=[view], is_wide=True)


def glossary(report: Report) -> Section | None:
    """What the arms are, in the words of ``ddoq help glossary``."""
    words = arm_words()
    arms = values_of(report.shown, ["arm"])["arm"]
    rows = [{"arm": arm, "images": words[arm]} for arm in arms if arm in words]
    view = table_of(rows, title="", num_left=2, name="glossary")
    return view and Section(title="What the arms are", views=[view], is_folded=True, is_wide=True)


def arm_words() -> dict[str, str]:
    """Return what the glossary says about arms, by name."""
    text = _GLOSSARY.read_text(encoding="utf-8")
    table = text.partition("## Arms")[2].partition("\n## ")[0]
    words: dict[str, str] = {}
    for line in table.splitlines():
        if line.startswith("| `"):
            names, what = line.strip("| ").split(" | ")
            words |= dict.fromkeys(names.replace("`", "").split(), what)
    return words
