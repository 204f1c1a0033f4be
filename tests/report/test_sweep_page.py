"""`ddoq report`: what is averaged and what never is, what users name,
and what they get on the terminal and on disk.
"""

from __future__ import annotations

import csv
import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import fmean, stdev

import pytest
from scipy import stats

from ddoq.errors import DataError
from ddoq.report import command, many
from ddoq.report.best import best
from ddoq.report.groups import LABEL, Group, distinct, groups_of
from ddoq.report.many import grouped
from ddoq.report.pairs import comparison_of
from ddoq.report.select import select
from ddoq.report.tables import accuracy_view, pivots
from ddoq.report.view import View, latex, markdown, table_of
from support.processes import ddoq
from support.report_rows import old, row, write_run, write_sweep
from support.runs import ROOT


def groups(outputs: Path, *what: str) -> list[Group]:
    return grouped(select(what, outputs))


def mean(group: Group) -> float:
    return group["accuracy"].mean


def cells(view: View) -> list[dict[str, str]]:
    return [dict(zip(view.columns, cells, strict=True)) for cells in view.rows]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


# --- what is averaged -------------------------------------------------------------------------


def test_seeds_of_several_runs_are_one_group_and_a_shared_student_counts_once(tmp_path):
    write_run(tmp_path, "a", [row(0.50, seed=0), row(0.60, seed=1)])
    write_run(tmp_path, "b", [row(0.60, seed=1), row(0.70, seed=100)])
    (one,) = groups(tmp_path)
    assert one["accuracy"].num == 3 and math.isclose(mean(one), 0.6) and one["variant"] == ""
    assert math.isclose(
        one["accuracy"].ci95, stats.t.ppf(0.975, 2) * stdev([0.5, 0.6, 0.7]) / math.sqrt(3)
    )
    # One distilled set, used three times.
    assert math.isclose(one["device_hours"], (100 + 10 + 3 * 2) / 3600)


@pytest.mark.parametrize(
    "change",
    [
        {"dataset_key": "other", "method": 1},
        {"student": "resnet"},
        {"teacher": "other", "labels": "soft"},
        {"strength": 0.4},
        {"weighting": "power"},
        {"space": "pca"},
        {"redraw": True},
        {"method": "what no field says"},
    ],
    ids=str,
)
def test_students_that_differ_in_more_than_the_seed_are_never_averaged(tmp_path, change):
    write_run(tmp_path, "a", [row(0.5, seed=0)], {"quantizer": {"num_restarts": 1}})
    write_run(tmp_path, "b", [row(0.7, seed=1, **change)], {"quantizer": {"num_restarts": 5}})
    found = groups(tmp_path)
    assert sorted(map(mean, found)) == [0.5, 0.7]
    assert {one["accuracy"].num for one in found} == {1}
    shown = {(*(one[name] for name in LABEL), one["variant"]) for one in found}
    assert len(shown) == 2, "two lines that read the same"


def test_groups_of_one_name_say_how_they_differ(tmp_path):
    config = {
        "protocol": {"name": "smoke", "weight_decay": 0.1, "num_seeds": 2},
        "seed": 0,
        "paths": {"outputs": "x"},
    }
    other = {
        **config,
        "protocol": {"name": "smoke", "weight_decay": 0.5, "num_seeds": 9},
        "paths": {"outputs": "y"},
    }
    write_run(tmp_path, "a", [row(0.5, protocol_key="p1")], config)
    write_run(tmp_path, "b", [row(0.7, protocol_key="p2")], other)
    assert {one["variant"] for one in groups(tmp_path)} == {
        "protocol.weight_decay=0.1",
        "protocol.weight_decay=0.5",
    }
    for run in ("a", "b"):
        (tmp_path / "runs" / run / "config.yaml").write_text("{ damaged")
    from ddoq.report.select import read_config

    read_config.cache_clear()
    variants = sorted(one["variant"] for one in groups(tmp_path))
    assert variants[0].startswith("protocol_key=p1") and variants[1].startswith("protocol_key=p2")


def test_full_data_are_one_line_whatever_the_ipc(tmp_path):
    write_run(tmp_path, "a", [row(0.9, "full", ipc=1), row(0.4, ipc=1)])
    write_run(tmp_path, "b", [row(0.9, "full", ipc=10), row(0.6, ipc=10)])
    assert [(one["arm"], one["ipc"], one["accuracy"].num) for one in groups(tmp_path)] == [
        ("full", None, 1),
        ("ddoq", 1, 1),
        ("ddoq", 10, 1),
    ]


def test_old_rows_load_with_dashes_and_share_a_mean_only_by_their_configuration(tmp_path):
    config = {"quantizer": {"name": "kmeans"}, "protocol": {"num_seeds": 1}, "seed": 0}
    write_run(tmp_path, "a", [old(row(0.5, seed=0))], config)
    write_run(tmp_path, "b", [old(row(0.6, seed=100))], config | {"seed": 1})
    write_run(
        tmp_path,
        "c",
        [old(row(0.9, seed=200))],
        config | {"seed": 2, "quantizer": {"name": "kmeans", "n": 2}},
    )
    write_run(tmp_path, "d", [old(row(0.1, seed=300))])
    selection = select([], tmp_path)
    found = grouped(selection)
    assert sorted(one["accuracy"].num for one in found) == [1, 1, 2]
    assert len(selection.warnings) == 1
    (pair,) = (one for one in found if one["accuracy"].num == 2)
    assert mean(pair) == 0.55
    line = cells(accuracy_view(found, "test"))[0]
    assert line["bytes"] == line["W2² own"] == "–" and line["seeds"] in ("1", "2")


def test_a_comparison_that_repeats_the_runs_own_setting_is_shown_once(tmp_path):
    own, again = row(0.5), row(0.5) | {"table": "student", "value": "convnet"}
    write_run(
        tmp_path, "a", [own, again, row(0.7, table="student", value="resnet", student="resnet")]
    )
    found = groups(tmp_path)
    assert len(found) == 3 and [mean(one) for one in distinct(found)] == [0.5, 0.7]


# --- what is named ----------------------------------------------------------------------------


def test_damage_is_named_and_the_rest_is_reported(tmp_path, capsys):
    run = write_run(tmp_path, "a", [row(0.5), row(0.6, seed=1)])
    lines = (run / "results.jsonl").read_text().splitlines()
    broken = [
        lines[0][:40],
        "[1]",
        '{"arm": "x"}',
        lines[1].replace("0.6", "7.0"),
        json.dumps(row(0.5) | {"seed": []}),
    ]
    (run / "results.jsonl").write_text("\n".join([*lines, *broken]))
    (run / "validation.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "runs" / "empty").mkdir()
    assert command.main(["--outputs", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert "results.jsonl, line 3, 4, 5, 6, 7" in warning and "validation.jsonl, line 1" in warning
    assert [one["num_seeds"] for one in table(tmp_path / "out")] == ["2"]


def test_sweep_by_name_and_folder_with_points_that_are_not_finished(tmp_path, capsys):
    write_run(tmp_path, "a", [row(0.5)])
    write_run(tmp_path, "other", [row(0.9, "d4m")])
    sweep = write_sweep(tmp_path, "first", ["a", "gone"])
    for what in ("first", str(sweep)):
        (one,) = groups(tmp_path, what)
        assert one["arm"] == "ddoq"
    assert select(["first"], tmp_path).home == sweep
    assert select(["first", "arm=ddoq"], tmp_path).home.parent == tmp_path / "reports"
    command.main(["first", "--outputs", str(tmp_path)])
    assert "1 of 2 points of sweep first have no results yet: gone" in capsys.readouterr().err
    page = (sweep / "report.html").read_text()
    assert "ddoq -m &lt;ipc&gt;=1,2" in page and "point=0" in page
    (sweep / "sweep.json").write_text('{"points": [{"r')
    with pytest.raises(DataError, match="is damaged"):
        select(["first"], tmp_path)


def test_runs_folders_and_queries_select(tmp_path):
    run = write_run(tmp_path, "a", [row(0.5, "d4m"), row(0.6, strength=0.2), row(0.7, ipc=1)])
    write_run(tmp_path, "b", [row(0.8, seed=1)])
    assert len(select([], tmp_path).rows) == len(select([str(tmp_path)], tmp_path).rows) == 4
    assert len(select(["a"], tmp_path).rows) == len(select([str(run), "a"], tmp_path).rows) == 3
    assert len(select(["arm=ddoq,d4m", "ipc=10"], tmp_path).rows) == 3
    assert len(select(["strength=0.20"], tmp_path).rows) == 4
    assert len(select(["teacher=none ipc=1.0"], tmp_path).rows) == 1
    for what, cause, remedy in (
        (["armm=ddoq"], "rows have no 'armm'", "did you mean 'arm'?"),
        (["arm=dd0q"], "no result has arm=dd0q", "did you mean 'ddoq'?"),
        (["ipc=10", "ipc=1"], "no result has ipc=1", "did you mean '10'?"),
        (["zz"], "there is no run, sweep or folder 'zz'", "choose one of: a, b"),
        (["arm="], "'arm=' is no query", "write key=value"),
    ):
        with pytest.raises(DataError) as error:
            select(what, tmp_path)
        assert cause in error.value.cause and remedy in error.value.remedy


def test_nothing_to_report_is_two_lines(tmp_path):
    done = ddoq("report", "--outputs", str(tmp_path))
    assert done.returncode == 1 and done.stdout == ""
    cause, remedy = done.stderr.splitlines()
    assert cause.startswith("ddoq: error: report: no results in") and remedy.startswith("  -> ")


# --- tables -----------------------------------------------------------------------------------


def test_pivots_average_nothing_and_put_the_full_data_beside_every_kind_of_labels():
    rows = [row(0.9, "full", ipc=ipc) for ipc in (1, 10)]
    rows += [
        row(0.01 * ipc + gain, arm, ipc=ipc)
        for arm, gain in (("d4m", 0), ("ddoq", 0.1))
        for ipc in (10, 1)
    ]
    soft = [
        row(0.3, ipc=ipc, labels="soft", teacher="own", table="labels", value="soft")
        for ipc in (1, 10)
    ]
    hard, other = pivots(groups_of(rows + soft), "arm", "ipc")
    assert (
        hard.columns == ["arm", "1", "10", "all"]
        and "labels hard" in hard.title
        and "labels soft" in other.title
    )
    assert hard.rows == [
        ["full", "–", "–", "90.0 (1)"],
        ["d4m", "1.0 (1)", "10.0 (1)", "–"],
        ["ddoq", "11.0 (1)", "20.0 (1)", "–"],
    ]
    assert other.rows == [["full", "–", "–", "90.0 (1)"], ["ddoq", "30.0 (1)", "30.0 (1)", "–"]]
    assert pivots(groups_of(rows[:1] + rows[-1:]), "arm", "ipc") == []  # full data: no column
    assert pivots(groups_of(rows[-1:]), "arm", "ipc") == []  # a single column
    assert len(pivots(groups_of(rows[-1:]), "arm", "strength", least=1)) == 1


def test_pivot_of_datasets_has_a_column_for_every_setting():
    rows = [row(0.9, "full"), row(0.5), row(0.6, dataset="mnist", protocol="dc")]
    rows += [row(0.7, dataset="mnist", student="wide")]
    (view,) = pivots(groups_of(rows), "arm", "dataset")
    assert view.columns == [
        "arm",
        "digits · smoke · convnet",
        "mnist · dc · convnet",
        "mnist · smoke · wide",
    ]
    assert view.rows == [
        ["full", "90.0 (1)", "–", "–"],
        ["ddoq", "50.0 (1)", "60.0 (1)", "70.0 (1)"],
    ]


def test_files_say_the_same_and_escape_what_users_name(tmp_path):
    name = r"<b>50%_of|my & data</b>"
    write_run(tmp_path, "a", [row(0.5, dataset=name), row(0.7, seed=1, dataset=name)])
    command.main(["--outputs", str(tmp_path), "--out", str(tmp_path / "out")])
    (line,) = table(tmp_path / "out")
    assert (
        line["dataset"] == name
        and line["num_seeds"] == "2"
        and line["teacher"] == line["variant"] == ""
    )
    assert math.isclose(float(line["mean"]), 0.6) and math.isclose(
        float(line["std"]), stdev([0.5, 0.7])
    )
    assert (
        math.isclose(float(line["best_mean"]), 0.7)
        and float(line["w2_squared"]) == 1
        and line["num_bytes"] == "1000.0"
    )
    page, tex = ((tmp_path / "out" / file).read_text() for file in ("report.html", "table.tex"))
    assert (
        name not in page
        and "&lt;b&gt;50%_of|my &amp; data&lt;/b&gt;" in page
        and "60.0 ± 14.1" in page
    )
    assert r"\textless{}b\textgreater{}50\%\_of|my \& data" in tex and r"60.0 $\pm$ 14.1" in tex
    assert r"50%\_of\|my &amp; data&lt;/b>" in (tmp_path / "out" / "table.md").read_text()
    assert "http" not in page.replace("http://www.w3.org", "")  # self-contained


def test_run_names_lead_to_their_reports_and_arms_are_explained(tmp_path, capsys):
    for name in ("a", "b c"):
        write_run(tmp_path, name, [row(0.5), row(0.6, "d4m"), row(0.9, "full")])
    (tmp_path / "runs" / "b c" / "report.html").write_text("")
    sweep = write_sweep(tmp_path, "both", ["a", "b c"])
    command.main(["both", "--outputs", str(tmp_path)])
    page = (sweep / "report.html").read_text()
    assert '<a href="../../runs/b%20c/report.html">b c</a>' in page
    assert page.count("<a ") == 1  # the other run has no report
    assert "D4M&#39;s centroids" in page and "the training data itself" in page
    assert "prefers-color-scheme: dark" in page
    capsys.readouterr()


def test_latex_and_markdown_tables_are_well_formed():
    rows = [{"arm": "a_b", "interval": "[1, 2]"}, {"arm": "c", "interval": "~^\\"}]
    view = table_of(rows, title="t", bold=frozenset({0}))
    lines = latex(view).splitlines()
    assert r"\textbf{a\_b} & \textbf{[1, 2]} \\" in lines
    assert r"c & \textasciitilde{}\textasciicircum{}\textbackslash{} \\" in lines
    assert markdown(view).splitlines()[2:5] == [
        "| arm | interval |",
        "| --- | ---: |",
        r"| **a\_b** | **\[1, 2\]** |",
    ]


def test_write_is_what_a_sweep_calls_at_its_end(tmp_path, capsys):
    runs = [
        write_run(tmp_path, f"ipc{ipc}", [row(0.5, ipc=ipc), row(0.6, "d4m", ipc=ipc)])
        for ipc in (1, 10)
    ]
    many.write([*runs, tmp_path / "runs" / "failed"], tmp_path / "out", "my sweep")
    shown = capsys.readouterr()
    assert "arm × ipc" in shown.out and "failed: no results yet" in shown.err
    page = (tmp_path / "out" / "report.html").read_text()
    # Accuracy and W2, both against images per class.
    assert "my sweep" in page and page.count('<figure class="chart">') == 2
    with pytest.raises(DataError, match="no results"):
        many.write([tmp_path / "runs" / "failed"], tmp_path / "out", "none")


# --- choices and pairs ------------------------------------------------------------------------


def test_best_is_chosen_on_validation_where_there_is_one():
    on_test = [row(0.9, "d4m"), row(0.5), row(0.8, ipc=1), row(0.95, "full")]
    tried = [
        row(value, split="validation", table="weighting", value=w, weighting=w)
        for w, value in (("mass", 0.7), ("power", 0.4))
    ]
    first, second = cells(best(groups_of(on_test + tried)))
    assert (first["ipc"], first["arm"], first["chosen on"]) == (
        "1",
        "ddoq",
        "test: no basis for a choice",
    )
    assert (second["arm"], second["condition"], second["chosen on"], second["of"]) == (
        "ddoq",
        "weighting=mass",
        "validation",
        "2",
    )
    assert second["ahead by"] == "30.0" and second["top-1 on test %"] == "50.0 (1)"


def compared(a: str, b: str, outputs: Path) -> str:
    """Return the comparison of two sides as text."""
    view, _ = comparison_of(a, b, [], outputs)
    return markdown(view)


def test_comparison_is_the_paired_t_test_of_the_common_seeds(tmp_path):
    ours, theirs = [0.50, 0.55, 0.61, 0.58], [0.48, 0.50, 0.60, 0.59]
    rows = [row(value, seed=seed) for seed, value in enumerate(ours)]
    rows += [row(value, "d4m", seed=seed) for seed, value in enumerate(theirs)]
    write_run(tmp_path, "a", [*rows, row(0.9, seed=8), row(0.2, "d4m", seed=9), row(0.1, ipc=1)])
    text = compared("ddoq", "d4m", tmp_path)
    expected = stats.ttest_rel(ours, theirs)
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    assert f"{100 * fmean(differences):+.1f} ± {100 * stdev(differences):.1f}" in text
    assert (
        f"{expected.pvalue:.2g}" in text
        and f"{fmean(differences) / stdev(differences):+.2f}" in text
    )
    assert (
        "seeds 8, which only ddoq has" in text
        and "seeds 9, which only d4m has" in text
        and "3 / 0 / 1" in text
    )


def test_comparison_pairs_runs_by_main_arm_and_queries_by_what_they_do_not_name(tmp_path):
    write_run(tmp_path, "x", [row(0.4, "random"), row(0.5, "d4m")])
    write_run(tmp_path, "y", [row(0.2, "random", ipc=1), row(0.4, "random"), row(0.7, "ddoq")])
    # ddoq against d4m; the random arms are the same students.
    assert "+20.0" in compared("y", "x", tmp_path)
    assert "+20.0" in compared("arm=random ipc=10", "arm=random ipc=1", tmp_path)


def test_comparison_refuses_what_is_no_pair(tmp_path):
    write_run(
        tmp_path, "a", [row(0.5), row(0.6, "d4m", seed=7), row(0.1, "random", protocol="other")]
    )
    write_run(tmp_path, "b", [row(0.7, strength=0.4)])
    for other, cause in (("d4m", "several students of seed 0"), ("strength=0.9", "no result has")):
        with pytest.raises(DataError, match=cause):
            comparison_of("ddoq", other, [], tmp_path)
    for other in ("d4m", "random"):  # another seed, another protocol
        with pytest.raises(DataError, match="no two different students"):
            comparison_of("arm=ddoq strength=0.4", other, [], tmp_path)


# --- cost -------------------------------------------------------------------------------------

_IN_A_PROCESS = """
import sys
from ddoq.report import command
assert command.main({arguments!r}) == 0
heavy = {{"torch", "lightning", "matplotlib", "PIL", "wandb"}} & set(sys.modules)
assert not heavy, heavy
"""


def test_a_thousand_rows_of_twenty_runs_take_no_torch_and_little_time(tmp_path):
    arms = ("full", "random", "d4m", "ddoq")
    for run in range(20):
        rows = [
            row(0.5 + 0.001 * seed, arm, seed, ipc=run + 1) for arm in arms for seed in range(10)
        ]
        rows += [
            row(0.5, seed=s, ipc=run + 1, split="validation", table="strength", value="0")
            for s in range(10)
        ]
        write_run(tmp_path, f"run{run}", rows, {"seed": 0})
    base = ["--outputs", str(tmp_path)]
    for arguments in (base, ["best", *base], ["compare", "ddoq", "d4m", *base]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-c", _IN_A_PROCESS.format(arguments=arguments)],
            check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
        )
        # Of the processor: the machine may be busy.
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
    (folder,) = (tmp_path / "reports").iterdir()
    assert sum(int(one["num_seeds"]) for one in table(folder)) == 20 * 40 + 10  # the full data once
