"""The report: what its figures and tables say,
and what they leave out where a measure is not known.
"""

from __future__ import annotations

import io
import json
import math
import re
import warnings

from rich.console import Console

from ddoq.evaluation.statistics import summarize
from ddoq.experiment import Experiment, Models
from ddoq.job import run_job
from ddoq.pipeline.store import Store
from ddoq.report import command
from ddoq.report.collect import Curve, Line
from ddoq.report.figures import curve_figure
from ddoq.report.rows import _meaning
from ddoq.report.tables import main_table, number, relative, saved, share
from ddoq.report.write import write_report
from ddoq.tracking import Tracker
from ddoq.utils.io import read_json
from support.report_rows import NEW
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


def curve(
    *points: dict, name: str = "ddoq", slope: float | None = None, dimension: float | None = None
) -> Curve:
    return Curve(name, list(points), slope, dimension, {})


def texts(figure: str) -> list[str]:
    """Return the texts of an SVG."""
    return re.findall(r"<(?:text|tspan)[^>]*>([^<]+)<", figure)


def test_squared_distances_are_shares_of_the_variance_and_unknown_ones_a_dash():
    assert share(measures(), "w2_squared") == 0.3
    assert relative(measures(), "held_out_distortion") == "0.750" and saved(measures()) == "25.0"
    assert relative(None, "w2_squared") == "–"  # the full data
    assert relative(measures(held_out_distortion=None), "held_out_distortion") == "–"
    # All images of a class alike.
    same = measures(variance=0.0, w2_squared=0.0, w2_squared_uniform=0.0)
    assert relative(same, "w2_squared") == saved(same) == "–"
    # A point on every latent.
    assert saved(measures(w2_squared=0.0, w2_squared_uniform=1e-15)) == "–"
    assert saved(measures(w2_squared=1.6 + 1e-12)) == "0.0"  # rounding is no loss
    assert number(None, 1) == "–" and number(-0.2449, 3) == "-0.245"


def test_terminal_table_shows_w2_of_the_masses_that_the_codebook_has():
    one = summarize([0.9])
    line = Line(
        label="barycenter",
        arm="barycenter",
        top1=one,
        top1_best=one,
        top5=None,
        ece=one,
        accuracies=(0.9,),
        per_class=[],
        parts={},
        num_images=100,
        num_steps=10,
        epochs=None,
        num_bytes=1000,
        codebook=measures(),
    )
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(main_table([line], "title"))
    assert console.export_text().splitlines()[-1].split()[-2:] == ["0.300", "0.400"]


def test_figure_names_the_fitted_rate_and_every_k_as_an_integer():
    main = curve(
        measures(1, w2_squared=4.0),
        measures(10, held_out_distortion=None),
        measures(50, w2_squared=0.4),
        slope=-0.245,
        dimension=4.08,
    )
    random = curve(measures(1), measures(50), name="random", slope=-0.2, dimension=5.0)
    shown = texts(curve_figure([random, main]))
    assert [text for text in shown if text.isdigit() and text != "1"] == ["10", "50"]
    assert "W2 ∝ K^−0.24, d ≈ 4.1" in shown and "W2 ∝ K^−0.20, d ≈ 5.0" in shown
    assert [text for text in shown if text.startswith(("ddoq", "random"))] == [
        "ddoq, own masses",
        "ddoq, equal masses",
        "ddoq, held out",
        "random, own masses",
    ]


def test_figure_leaves_out_what_is_unknown_or_has_no_logarithm():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unknown = curve(measures(held_out_distortion=None))  # one K, nothing held out, no rate
        shown = texts(curve_figure([unknown]))
        assert "ddoq, own masses" in shown and not [
            text for text in shown if "held out" in text or "∝" in text
        ]
        exact = curve(measures(1), measures(20, w2_squared=0.0), slope=-math.inf)
        assert "20" in texts(curve_figure([exact]))
        rising = curve(measures(1), measures(2), slope=0.01)
        assert "W2 ∝ K^0.01" in texts(curve_figure([rising]))
        for nothing in (curve(), curve(measures(variance=0.0)), curve(measures(w2_squared=0.0))):
            assert curve_figure([nothing]) == ""


MADE_UP = {
    **{
        "top1": 0.5,
        "top1_best": 0.6,
        "top5": None,
        "ece": 0.1,
        "nll": 1.0,
        "per_class": [0.5] * 10,
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
    write_report(experiment, store, [], tmp_path, Tracker(config, tmp_path))

    page = (tmp_path / "report.html").read_text()
    assert "<h2>Quantization</h2>" in page and 'id="curve"' not in page and page.count("<svg") == 1
    facts = store.manifest(experiment.entries[0].quantize)["facts"]
    w2, distortion = (
        f"{facts[name] / facts['variance']:.3f}" for name in ("w2_squared", "distortion")
    )
    # Two arms in two tables.
    assert w2 != distortion and page.count(f"<td>{w2}</td><td>{w2}</td>") == 2 * 2
    assert page.count("<td>0.0</td>\n<td>–</td>\n<td>10.0 of 10</td>\n<td>0.00</td>") == 2
    # No slope, no dimension.
    assert len(re.findall(r"<td>\d</td><td>–</td><td>–</td><td>10</td>", page)) == 10

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
