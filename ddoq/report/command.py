"""``ddoq report``: one table of any set of runs, the best arms of it, or two of them compared."""

from __future__ import annotations

import argparse

from ddoq.errors import DataError
from ddoq.report import many
from ddoq.report.best import best
from ddoq.report.groups import distinct
from ddoq.report.pairs import comparison_of
from ddoq.report.select import Selection, select
from ddoq.report.view import show
from ddoq.utils.console import console
from ddoq.utils.paths import as_folder

_WHAT = """WHAT is a run's folder or name, a folder of runs, a sweep's name or folder,
or a query on the fields of results: key=value[,value], e.g. dataset=digits ipc=10,50 arm=ddoq,d4m.
Several are joined, queries narrow. Default: all runs."""
_TABLE = f"""One table of any set of runs: mean, standard deviation, 95 % interval and number
of seeds of every arm, on the terminal and as table.csv, table.md, table.tex and report.html.
Students that differ in more than their seed are never averaged;
one that several runs share counts once.

{_WHAT}

  ddoq report best [WHAT ...]         the best arm of every setting,
                                      chosen on validation where that was measured
  ddoq report compare A B [WHAT ...]  two arms, runs or queries on the same seeds:
                                      difference, interval, p
"""
_BEST = f"""The best arm for every data set, protocol, student and number of images per class.
It is chosen on the validation split; where nothing was measured there,
the best on test is named, which is no basis for a choice.

{_WHAT}"""
_COMPARE = f"""Two arms on the same seeds: mean difference, 95 % interval, effect size d_z
and p of the paired t test, for every setting that both have. A and B are arms (ddoq d4m),
runs (their main arms are paired), or queries in quotes ("arm=ddoq strength=0.4").

{_WHAT}"""


def main(arguments: list[str]) -> int:
    """Do what the command line says; return the exit code.

    Raises DdoqError for what a user can solve.
    """
    name = arguments[0] if arguments[:1] in (["best"], ["compare"]) else ""
    options = _parser(name).parse_args(arguments[1:] if name else arguments)
    outputs = options.outputs
    try:
        if name == "best":
            _print_best(select(options.what, outputs))
        elif name == "compare":
            view, warnings = comparison_of(options.a, options.b, options.what, outputs)
            many.warn(warnings)
            show(view, console)
        else:
            selection = select(options.what, outputs)
            many.report(selection, options.out or selection.home, options.pivot)
    except OSError as error:
        raise DataError(
            f"report: {error.filename}: {error.strerror}", "choose a folder that you may use"
        ) from error
    return 0


def _print_best(selection: Selection) -> None:
    many.warn(selection.warnings)
    show(best(distinct(many.grouped(selection))), console)


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"ddoq report {name}".strip(),
        description={"best": _BEST, "compare": _COMPARE}.get(name, _TABLE),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if name == "compare":
        parser.add_argument(
            "a", metavar="A", help="what is compared: an arm, a run, or a query in quotes"
        )
        parser.add_argument("b", metavar="B", help="with what: likewise")
    parser.add_argument(
        "what", metavar="WHAT", nargs="*", help="runs, folders, sweeps, queries (default: all runs)"
    )
    add = parser.add_argument
    add(
        "--outputs",
        type=as_folder,
        default="outputs",
        metavar="DIR",
        help="where runs and sweeps are (outputs)",
    )
    if not name:
        parser.add_argument(
            "--out",
            type=as_folder,
            metavar="DIR",
            help="where the files go (default: the sweep's, or one in outputs/reports)",
        )
        parser.add_argument(
            "--pivot",
            nargs=2,
            action="append",
            default=[],
            metavar=("ROW", "COLUMN"),
            help="two fields against each other, e.g. --pivot arm student; may be repeated",
        )
    return parser
