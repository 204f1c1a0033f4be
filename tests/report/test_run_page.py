"""The page of a run: what its figures and tables say,
and what they leave out where a measure is not known.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from html import unescape

from ddoq.evaluation.statistics import compare_paired, summarize
from ddoq.experiment import Experiment, Models
from ddoq.job import run_job
from ddoq.pipeline.store import Store
from ddoq.report import command
from ddoq.report.chart import Chart, linear, logarithmic
from ddoq.report.figures import accuracy_figure, colour, curve_series, w2_figure
from ddoq.report.formats import interval, number, p_value, percent, relative, saved, share
from ddoq.report.groups import groups_of
from ddoq.report.page import under_trained
from ddoq.report.pairs import contributions
from ddoq.report.rows import _meaning
from ddoq.report.run_page import write_report
from ddoq.report.tables import accuracy_view
from ddoq.tracking import Tracker
from ddoq.utils.io import read_json
from support.report_rows import NEW, row
from support.runs import composed


def measures(num: int = 10, **changed: float | None) -> dict[str, float | None]:
    """Return measures of a codebook that are all different,
    so that none can stand in for another.
    """
    known = {
        "distortion": 1.0,
        "held_out_distortion": 3.0,
        "variance": 4.0,
        "w2_squared": 1.2,
        "w2_squared_uniform": 1.6,
        "effective_size": 8.0,
        "dispersion": 0.5,
    }
    return {"num_centroids": num, **known, **changed}


def figure(*points: dict, name: str = "ddoq", slope=None, dimension=None, only=()) -> str:
    """Return the chart of one curve."""
    about = {"name": name, "arm": name, "slope": slope, "dimension": dimension}
    return html(w2_figure(curve_series(about | {"points": points}, *only)))


def html(chart: Chart | None) -> str:
    return chart.__html__() if chart else ""


def texts(figure: str) -> list[str]:
    """Return the texts of a chart and its legend."""
    return re.findall(r"<(?:text|span)[^>]*>([^<]+)<", figure)


def test_squared_distances_are_shares_of_the_variance_and_unknown_ones_a_dash():
    assert share(measures(), "w2_squared") == 0.3
    assert relative(measures(), "held_out_distortion") == "0.750" and saved(measures()) == "25.0"
    assert relative({}, "w2_squared") == "–"  # the full data
    assert relative(measures(held_out_distortion=None), "held_out_distortion") == "–"
    # All images of a class alike.
    same = measures(variance=0.0, w2_squared=0.0, w2_squared_uniform=0.0)
    assert relative(same, "w2_squared") == saved(same) == "–"
    # A point on every latent.
    assert saved(measures(w2_squared=0.0, w2_squared_uniform=1e-15)) == "–"
    assert saved(measures(w2_squared=1.6 + 1e-12)) == "0.0"  # rounding is no loss
    assert number(None, 1) == "–" and number(-0.2449, 3) == "-0.245"


def test_no_spread_is_a_dash_and_never_certainty():
    alike, single = summarize([0.5, 0.5, 0.5]), summarize([0.5])
    assert (percent(alike), interval(alike)) == ("50.0 ± –", "–")
    assert (percent(single), interval(single)) == ("50.0", "–")
    # Equal differences that are not zero: the t test would say p = 0.
    assert p_value(compare_paired([0.7, 0.8], [0.5, 0.6])) == "–"
    assert p_value(compare_paired([0.7, 0.8], [0.7, 0.8])) == "–"
    assert p_value(compare_paired([0.7001, 0.8, 0.9], [0.1, 0.2, 0.3])) == "< 0.001"


def test_the_table_shows_w2_of_the_masses_that_the_codebook_has():
    groups = groups_of([row(0.9, w2_squared=1.2, w2_squared_uniform=1.6, variance=4.0)])
    view = accuracy_view(groups, "test", "ddoq")
    line = dict(zip(view.columns, *view.rows, strict=True))
    assert (line["W2² own"], line["W2² equal"]) == ("0.300", "0.400") and view.bold == {0}


def test_strength_is_a_number_wherever_an_arm_is_compared_at_two_of_them():
    """0.0 and "0" are one strength; configured is the one of the generator."""
    rows = [row(0.6, strength=0.4), row(0.5, "random")]
    rows += [
        row(top1, split="validation", table="strength", value=f"{strength:g}", strength=strength)
        for strength, top1 in ((0.0, 0.2), (0.4, 0.3), (1.0, 0.1))
    ]
    view = contributions(groups_of(rows), 0.4)
    changes = {line[1]: line[3] for line in view.rows}
    assert changes == {"strength 0 → strength 0.4": "+10.0", "strength 1 → strength 0.4": "+20.0"}


def test_students_far_from_the_floor_of_their_loss_are_named():
    groups = groups_of([row(0.9, unlearned=0.02), row(0.4, "d4m", unlearned=0.8), row(0.1, "full")])
    (warning,) = under_trained(groups)
    assert "d4m" in warning and "80 %" in warning
    assert "ddoq" not in warning and "full" not in warning  # soft labels, or rows of an old run
    assert under_trained(groups_of([row(0.9)])) == []


# --- figures ----------------------------------------------------------------------------------


def test_axes_hold_every_value_and_never_leave_what_is_possible():
    axis = linear("%", [99.0, 99.8, 100.0], bounds=(0, 100))
    assert axis.high == 100 and axis.low < 99 and all(value <= 100 for value, _ in axis.ticks)
    assert [axis.place(axis.low), axis.place(axis.high)] == [0, 1]
    flat = linear("%", [0.0], bounds=(0, 100))  # one value, at the edge
    assert flat.low == 0 < flat.high and flat.place(0.0) == 0
    log = logarithmic("K", [1, 10, 50], at=[1, 10, 50])
    assert [text for _, text in log.ticks] == ["1", "10", "50"]
    assert math.isclose(log.place(10), math.log(11.2) / math.log(56 * 1.12))


def test_every_student_is_a_dot_and_an_interval_ends_at_100():
    groups = groups_of([row(0.9, "d4m"), row(1.0, "d4m", seed=1), row(0.5), row(0.5, seed=1)])
    drawn = html(accuracy_figure(groups, "test"))
    assert drawn.count("<circle") == 4 + 2
    ends = [float(end) for end in re.findall(r"<text[^>]*>([\d.]+)<", drawn)]
    assert ends and max(ends) <= 100 and {"d4m", "ddoq"} <= set(texts(drawn))


def test_an_arm_has_one_colour_on_every_page():
    lines = [colour(arm) for arm in ("ddoq", "ddoq_uniform", "random", "d4m", "nearest")]
    assert len(set(lines)) == 5
    assert colour("mine") == colour("mine") != colour("another")
    groups = groups_of([row(0.5, "d4m"), row(0.6)])
    assert html(accuracy_figure(groups[:1], "test")).count(colour("d4m")) == 2
    assert colour("d4m") in html(accuracy_figure(groups, "test"))


def test_figure_names_the_fitted_rate_and_every_k_as_an_integer():
    points = (
        measures(1, w2_squared=4.0),
        measures(10, held_out_distortion=None),
        measures(50, w2_squared=0.4),
    )
    shown = texts(figure(*points, slope=-0.245, dimension=4.08))
    assert [text for text in shown if text.isdigit() and text != "1"] == ["10", "50"]
    assert [text for text in shown if text.startswith("ddoq")] == [
        "ddoq, own masses: W2 ∝ K^−0.24, d ≈ 4.1",
        "ddoq, equal masses",
        "ddoq, held out",
    ]
    other = texts(figure(*points, name="random", slope=-0.2, dimension=5.0, only=[["w2_squared"]]))
    assert "random, own masses: W2 ∝ K^−0.20, d ≈ 5.0" in other


def test_figure_leaves_out_what_is_unknown_or_has_no_logarithm():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # One K, nothing held out, no rate.
        shown = texts(figure(measures(held_out_distortion=None)))
        assert "ddoq, own masses" in shown
        assert not [text for text in shown if "held out" in text or "∝" in text]
        assert "20" in texts(figure(measures(1), measures(20, w2_squared=0.0), slope=-math.inf))
        assert "ddoq, own masses: W2 ∝ K^0.01" in texts(figure(measures(1), slope=0.01))
        for nothing in ((), (measures(variance=0.0),)):
            assert figure(*nothing) == ""


# --- the page ---------------------------------------------------------------------------------


def table_of(page: str, name: str) -> list[list[str]]:
    """Return the texts of a table of the page, without its head."""
    (body,) = re.findall(rf'<table id="{name}">(.*?)</table>', page, re.DOTALL)
    return [re.findall(r"<td.*?>(.*?)</td>", line, re.DOTALL) for line in body.split("<tr")[2:]]


MADE_UP = {
    **{
        "top1": 0.5,
        "top1_best": 0.6,
        "top5": None,
        "ece": 0.1,
        "nll": 1.0,
        "per_class": [0.5] * 10,
        "history": [{"step": 10, "top1": 0.5, "loss": 2.0}],
    },
    **{"num_images": 100, "epochs": None, "num_steps": 10, "batch_size": 50, "learning_rate": 0.1},
}


def test_report_without_curve_and_held_out_distortion(tmp_path):
    """A barycentre, whose own masses are not those of its cells.

    Accuracies are made up: no student is trained.
    """
    chosen = ("quantizer=barycenter", "generator=decode", "measure.curve=[]", "measure.num_folds=0")
    few = ("baselines=none", "ablation=none", "protocol.num_seeds=1", "trainer.accelerator=cpu")
    config = composed(*chosen, *few, f"paths.outputs={tmp_path}", "run.until=label")
    run_job(config, tmp_path)
    (index,) = tmp_path.glob("store/index/*/manifest.json")
    experiment = Experiment(config, read_json(index)["body"]["identity"]["fingerprint"], Models([]))
    store = Store(tmp_path / "store")
    for entry in experiment.entries:
        store.ensure(entry.evaluate, lambda folder: MADE_UP)
    command_line = "ddoq quantizer=barycenter 'measure.curve=[]'"
    write_report(experiment, store, [], tmp_path, Tracker(config, tmp_path), command_line)

    page = unescape((tmp_path / "report.html").read_text())
    assert f"<pre>{command_line}</pre>" in page and "name: digits\n" in page
    lead, warning = (page.index(f'class="{part}"') for part in ("lead", "warning"))
    assert "reaches 50.0 % on test with 100 images of digits" in page[lead:warning]
    assert "Under-trained: barycenter" in page[warning:]
    assert lead < page.index("data:image/png") < page.index('id="accuracy-test"')
    assert "<h2>Quantization</h2>" in page and 'id="curve"' not in page
    assert page.count('<figure class="chart">') == 1
    facts = store.manifest(experiment.entries[0].quantize)["facts"]
    w2, distortion = (
        f"{facts[name] / facts['variance']:.3f}" for name in ("w2_squared", "distortion")
    )
    # Two arms, in the table of accuracies and in that of codebooks.
    assert w2 != distortion
    for name in ("accuracy-test", "codebooks"):
        assert [line.count(w2) for line in table_of(page, name)] == [2, 2]
    for line in table_of(page, "codebooks"):
        assert line[4:] == ["0.0", "–", "10.0 of 10", "0.00"]
    classes = table_of(page, "classes")
    assert len(classes) == 10 and {tuple(line[1:4]) for line in classes} == {("–", "–", "10")}

    # ... and its rows say what a table of many runs needs, all of it known but what was made up.
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert set(rows[0]) >= {"table", "value", "key", *NEW}
    known = {
        "num_train": 1099,
        "num_validation": 199,
        "num_test": 499,
        "dataset_source": "scikit-learn digits",
    }
    for one, entry in zip(rows, experiment.entries, strict=True):
        assert one.items() >= known.items() and one["device"] == "cpu" and one["redraw"] is True
        assert one["w2_squared"] == facts["w2_squared"] and one["space"] == "latents"
        assert one["num_bytes"] == store.manifest(entry.label)["cost"]["bytes"]
    assert command.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert "barycenter" in (tmp_path / "out" / "table.csv").read_text()


def test_group_keys_know_everything_but_the_seed():
    """Two runs of other seeds, and other folds, belong to one mean;
    another strength or student does not.
    """
    few = ("baselines=none", "ablation=none", "protocol.num_seeds=2")

    def keys(*overrides: str) -> set[str]:
        experiment = Experiment(composed(*few, *overrides), "fingerprint", Models([]))
        return {
            _meaning(entry.evaluate)
            for entry in experiment.entries
            if entry.arm == experiment.main_name
        }

    assert len(keys()) == 1 and keys() == keys(
        "seed=3", "measure.num_folds=0", "protocol.num_seeds=4"
    )
    for change in (
        "generator.strength=0.3",
        "student.width=8",
        "dataset.split_seed=1",
        "quantizer.num_restarts=2",
        "ipc=5",
    ):
        assert keys() != keys(change), change
