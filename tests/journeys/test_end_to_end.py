"""The corridor as users walk it, at a tiny size:
results, resuming, sharing, odd folders, the README.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from PIL import Image

from ddoq.config.checks import check
from ddoq.config.names import run_name
from ddoq.errors import DataError, StageError
from ddoq.help import main as help_main
from ddoq.run import COMMANDS
from support.processes import ddoq, kill_once
from support.runs import ROOT, TINY, artefacts, composed, run_here

COLUMNS = {"dataset", "arm", "ipc", "protocol", "student", "seed", "top1", "top1_best"}


def rows(outputs: Path) -> list[dict]:
    (path,) = outputs.glob("runs/*/results.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The outputs of one tiny digits run."""
    outputs = tmp_path_factory.mktemp("outputs")
    done = ddoq(*TINY, f"paths.outputs={outputs}")
    assert done.returncode == 0, done.stderr
    return outputs


def test_results_hold_every_arm_and_seed(finished):
    found = rows(finished)
    assert all(row.keys() >= COLUMNS and row["split"] == "test" for row in found)
    arms = ["full", "random", "nearest", "d4m", "ddoq_uniform", "ddoq"]
    assert [(row["arm"], row["seed"]) for row in found] == [
        (arm, seed) for arm in arms for seed in (0, 1)
    ]
    assert all(0 <= row["top1"] <= row["top1_best"] <= 1 for row in found)
    assert {(row["arm"], row["strength"]) for row in found} == {
        *((arm, None) for arm in arms[:3]),
        *((arm, 0.2) for arm in arms[3:]),
    }
    assert all(row["num_images"] == (1099 if row["arm"] == "full" else 100) for row in found)


def test_report_is_one_file_that_shows_every_arm_and_image(finished):
    (page,) = finished.glob("runs/*/report.html")
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', text)  # nothing is fetched
    assert text.count("data:image/png;base64") == 100 + 10 * 8
    assert text.count('<figure class="chart">') == 3
    for word in (
        "random",
        "nearest",
        "d4m",
        "ddoq_uniform",
        "95 % interval",
        "fit_generator",
        "What each part contributes",
    ):
        assert word in text


def cells(page: str, table: str) -> list[list[str]]:
    """Return the texts of a table of the report, row by row, without its head."""
    (body,) = re.findall(rf'<table id="{table}">(.*?)</table>', page, re.DOTALL)
    return [re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL) for row in body.split("<tr")[2:]]


#: Of a codebook, as manifests say them.
MEASURES = (
    *("w2_squared", "w2_squared_uniform", "held_out_distortion", "variance"),
    *("effective_size", "dispersion"),
)


def measured(facts: dict, of: str = "") -> list[str]:
    """Return what the report should say about a codebook."""
    own, equal = facts["w2_squared"], facts["w2_squared_uniform"]
    shares = [
        f"{value / facts['variance']:.3f}" for value in (own, equal, facts["held_out_distortion"])
    ]
    saved = f"{100 * (1 - own / equal):z.1f}"
    return [
        *shares[:2],
        saved,
        shares[2],
        f"{facts['effective_size']:.1f}{of}",
        f"{facts['dispersion']:.2f}",
    ]


def test_report_shows_the_measures_that_the_manifests_hold(finished):
    page = next(finished.glob("runs/*/report.html")).read_text()
    found = [json.loads(path.read_text()) for path in finished.glob("store/*/*/manifest.json")]
    (curve,) = (
        one["facts"] for one in found if one["body"]["stage"] == "curve" and one["title"] == "ddoq"
    )
    firsts = [
        one
        for one in found
        if one["body"]["stage"] == "quantize" and one["body"]["identity"]["seed"] == 0
    ]
    by_name = {one["body"]["identity"]["quantizer"]["name"]: one["facts"] for one in firsts}
    # Random images are drawn anew for every student: their line is the mean.
    drawn = [
        one["facts"]
        for one in found
        if one["body"]["stage"] == "quantize"
        and one["body"]["identity"]["quantizer"]["name"] == "random"
    ]
    by_name["random"] = {
        name: fmean(facts[name] for facts in drawn if facts[name] is not None) for name in MEASURES
    }

    assert cells(page, "curve") == [
        [str(point["num_centroids"]), *measured(point)] for point in curve["points"]
    ]
    assert (
        f"K^(−{-curve['slope']:.3f})" in page and f"of dimension {curve['dimension']:.1f}:" in page
    )
    arms = {
        "random": "random",
        "nearest": "nearest",
        "d4m": "d4m",
        "ddoq_uniform": "kmeans",
        "ddoq": "kmeans",
    }
    assert cells(page, "codebooks") == [
        [arm, of, *measured(by_name[of], " of 10")] for arm, of in arms.items()
    ]
    for row, rate, facts in zip(
        cells(page, "classes"), curve["per_class"], by_name["kmeans"]["per_class"], strict=True
    ):
        own, equal, _, _, effective, _ = measured(facts)
        rates = [f"{rate['slope']:.3f}", f"{rate['dimension']:.1f}"]
        assert row == [str(rate["label"]), *rates, "10", own, equal, effective]
    (cost,) = (row for row in cells(page, "stages") if row[0] == "curve")
    assert cost[1] == "2"


def test_distilled_folder_is_usable_from_python_and_torchvision(finished):
    from torchvision.datasets import ImageFolder

    from ddoq import load_distilled

    (path,) = finished.glob("runs/*/distilled")
    data = load_distilled(path)
    assert len(data) == len(ImageFolder(path)) == 100
    assert data.labels.bincount().tolist() == [10] * 10
    for label in range(10):
        weights = data.weights[data.labels == label]
        assert weights.mean().item() == pytest.approx(1, abs=1e-5)
        counts = data.metadata["count"][data.metadata["label"] == label]
        assert np.allclose(weights.numpy(), 10 * counts / counts.sum(), atol=1e-5)  # mass weighting


def test_a_copied_run_has_its_images_without_the_store(finished, tmp_path):
    from ddoq import load_distilled

    (run,) = finished.glob("runs/*")
    copied = shutil.copytree(run, tmp_path / "elsewhere", symlinks=True)
    data = load_distilled(copied / "distilled")
    assert not data.path.is_symlink() and data[0][0].shape == (1, 8, 8)


def test_second_run_computes_nothing_and_says_the_same(finished):
    before = (finished / "store" / "ledger.jsonl").read_text(), rows(finished)
    done = ddoq(*TINY, f"paths.outputs={finished}")  # how long it takes: test_golden
    assert done.returncode == 0 and "computed" not in done.stdout
    assert ((finished / "store" / "ledger.jsonl").read_text(), rows(finished)) == before


def test_an_index_that_is_silent_about_later_findings_is_reported(finished):
    (index,) = (finished / "store" / "index").glob("*/manifest.json")
    text = index.read_text()
    told = json.loads(text)
    for name in ("ignored", "in_several_classes", "num_in_several_classes"):
        del told["facts"][name]
    try:
        index.write_text(json.dumps(told))
        run_here(*TINY, f"paths.outputs={finished}", "run.from=report")
    finally:
        index.write_text(text)


def test_a_change_recomputes_only_what_depends_on_it(finished, capsys):
    def misses(*overrides: str) -> set[str]:
        folder = run_here(*TINY, f"paths.outputs={finished}", "run.plan_only=true", *overrides)
        if not any(folder.iterdir()):
            folder.rmdir()  # leave the fixture as it was
        return {
            line.split()[0] for line in capsys.readouterr().out.splitlines() if " miss " in line
        }

    assert misses() == set()
    assert misses("trainer.batch_size=7", "logger=csv") == set()
    assert misses("student.width=4") == {"evaluate"}
    # The ablation labelled it already.
    assert misses("weighting=power", "ablation.strengths=[]") == {"evaluate"}
    assert misses("weighting=power", "weighting.exponent=0.3") == {"label", "evaluate"}
    assert misses("generator.guidance_scale=2") == {"generate", "label", "evaluate"}
    assert misses("ipc=5") == {"quantize", "generate", "label", "evaluate"}
    assert "fit_generator" in misses("generator.fit.num_steps=21")


def test_until_and_from(finished, tmp_path, capsys):
    run_here(*TINY, f"paths.outputs={tmp_path}", "run.until=quantize")
    assert {p.name for p in (tmp_path / "store").iterdir() if p.is_dir()} == {
        "index",
        "audit",
        "encode",
        "quantize",
    }
    codebooks = artefacts(tmp_path, "quantize")
    capsys.readouterr()
    run_here(*TINY, f"paths.outputs={tmp_path}", "run.until=quantize", "run.from=quantize")
    out = capsys.readouterr().out
    assert (
        re.search(r"quantize +\d+ computed", out)
        and "encode" not in out.split("store:")[1].split("✓")[1]
    )
    assert artefacts(tmp_path, "quantize") == codebooks


def test_output_does_not_depend_on_batch_size_beyond_rounding(finished, tmp_path):
    run_here(*TINY, f"paths.outputs={tmp_path}", "run.until=generate", "trainer.batch_size=7")
    assert artefacts(tmp_path, "quantize") == artefacts(finished, "quantize")
    names = sorted(
        str(p.relative_to(tmp_path)) for p in (tmp_path / "store" / "generate").rglob("*.png")
    )
    assert len(names) > 500
    for name in names:
        ours, theirs = (
            np.asarray(Image.open(root / name)).astype(int) for root in (tmp_path, finished)
        )
        assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize(
    ("stage", "delay"),
    [  # a whole run each: one by default, all with `make test-slow`
        pytest.param("encode", 0.0, marks=pytest.mark.slow),
        pytest.param("fit_generator", 0.2, marks=pytest.mark.slow),  # test_kills kills there, too
        pytest.param("generate", 0.3, marks=pytest.mark.slow),
        ("evaluate", 0.5),
    ],
)
def test_kill_in_any_stage_and_the_same_command_finishes_the_same(finished, tmp_path, stage, delay):
    """SIGKILL in a stage, then the same command: codebooks, models and images byte for byte."""
    kill_once(stage, *TINY, outputs=tmp_path, delay=delay)
    assert not list(tmp_path.glob("runs/*/results.jsonl"))
    run_here(*TINY, f"paths.outputs={tmp_path}")
    stages = ("index", "encode", "quantize", "fit_generator", "generate", "label")
    assert artefacts(tmp_path, *stages) == artefacts(finished, *stages)
    assert [row["top1"] for row in rows(tmp_path)] == [row["top1"] for row in rows(finished)]
    assert not list((tmp_path / "store").rglob(".tmp-*"))


# --- other data -------------------------------------------------------------------------------


@pytest.fixture
def odd_folder(tmp_path) -> Path:
    """Three classes of coloured noise: grey, CMYK, 16-bit and palette files, one truncated,
    one class of three.
    """
    random = np.random.default_rng(0)
    root = tmp_path / "photos"
    for label, (name, count) in enumerate([("cat", 14), ("straße & co", 14), ("tiny", 3)]):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 90, (20, 24, 3), dtype=np.uint8)
            pixels[..., label] += 120
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    grey = Image.open(root / "cat" / "0.png").convert("L")
    grey.save(root / "cat" / "1.png")
    Image.open(root / "cat" / "2.png").convert("CMYK").save(root / "cat" / "2.tiff")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(root / "cat" / "3.png")
    Image.open(root / "cat" / "4.png").convert("P").save(root / "cat" / "4.gif")
    whole = (root / "straße & co" / "5.png").read_bytes()
    (root / "straße & co" / "5.png").write_bytes(whole[: len(whole) // 2])
    (root / "straße & co" / "notes.txt").write_text("not an image")
    return root


FOLDER = (
    "dataset=image_folder",
    "dataset.image_size=16",
    "encoder=vae",
    "encoder.fit.num_steps=10",
    "encoder.fit.block_out_channels=[8,16]",
    "student.depth=2",
)


def test_odd_folder_stops_with_the_file_then_runs_with_skip(odd_folder, tmp_path):
    common = (*TINY, *FOLDER, f"dataset.root={odd_folder}", f"paths.outputs={tmp_path / 'out'}")
    with pytest.raises(
        DataError, match=r"1 unreadable image: [^\n]*5.png: [^\n]*\n.*on_bad_image=skip"
    ):
        run_here(*common)
    with pytest.raises(DataError, match=r"training images of class 'tiny'\n.*set ipc to at most"):
        run_here(*common, "dataset.on_bad_image=skip")
    done = ddoq(
        *common, "dataset.on_bad_image=skip", "ipc=1", "ablation=none", "trainer.batch_size=5"
    )
    assert done.returncode == 0, done.stderr
    (page,) = (tmp_path / "out").glob("runs/*/report.html")
    text = page.read_text()
    assert "1 unreadable images" in text and "5.png" in text and "straße &amp; co" in text
    assert len(rows(tmp_path / "out")) == 12


def test_nan_latents_stop_the_run_before_anything_is_built_on_them(tmp_path):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4, latent_channels=1
    )
    vae.encoder.conv_in.weight.data.fill_(3e38)  # finite, as all weights that are read have to be
    vae.save_pretrained(tmp_path / "vae")
    with pytest.raises(StageError, match=r"NaN or infinite\n.*encoder.path"):
        run_here(
            *TINY, "encoder=vae", f"encoder.path={tmp_path}", f"paths.outputs={tmp_path / 'out'}"
        )
    assert {p.parent.parent.name for p in (tmp_path / "out" / "store").rglob("manifest.json")} == {
        "index",
        "audit",
    }


@pytest.mark.parametrize(
    "experiment", ["fashion_mnist", pytest.param("cifar10", marks=pytest.mark.slow)]
)
def test_real_experiments_walk_the_corridor(shared, experiment, tmp_path):
    run_here(
        *TINY,
        f"+experiment={experiment}",
        "generator=dit_small",
        "space=latents",  # a teacher of 300 images is near chance on CIFAR-10, which stops the run
        f"paths.data={shared}",
        f"paths.outputs={tmp_path}",
        "ipc=2",
        "dataset.train_per_class=30",
        "encoder.fit.num_steps=5",
        "baselines=none",
        "ablation=none",
        "protocol.num_seeds=1",
    )
    assert {(row["arm"], row["strength"]) for row in rows(tmp_path)} == {
        ("ddoq", 0.8),
        ("ddoq_uniform", 0.8),
    }


# --- sweeps, README ---------------------------------------------------------------------------


def test_sweep_shares_what_its_points_have_in_common(finished):
    done = ddoq(
        "-m",
        *TINY,
        f"paths.outputs={finished}",
        "ablation=none",
        "seed=0",
        "ipc=10,3",
        "baselines=none",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("✓ fit_generator") == 0
    assert {
        run_name(composed(*TINY, f"ipc={ipc}", "ablation=none", "baselines=none"))
        for ipc in (3, 10)
    } <= {path.name for path in (finished / "runs").iterdir()}
    for folder in (finished / "runs").iterdir():  # leave the fixture as it was
        if folder.name != run_name(composed(*TINY)):
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()


DOCUMENTS = {
    file.name: file for file in (ROOT / "README.md", *sorted((ROOT / "ddoq" / "help").glob("*.md")))
}
WITHOUT_VALUES = ("-m", "fetch", "--help", "--cfg", "job")


def commands_of(text: str) -> list[str]:
    """Return what stands behind `ddoq` or `-m ddoq.run` in the blocks of a document,
    and in its lines as code.
    """
    blocks = "".join(re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    blocks = re.sub(r"\\\n +", "", blocks)
    typed = re.findall(
        r"^(?:[^#\n]*? )??(?:-m ddoq\.run|ddoq)(?: +([^#\n]*?))?(?: +#.*)?$", blocks, re.MULTILINE
    )
    named = re.findall(r"`ddoq ([^`…]+)`", text)
    return [*dict.fromkeys(typed + named)]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_of_documents_compose(name):
    """Every `ddoq` and `python -m ddoq.run` of the README
    and of the topics of `ddoq help` is a valid command.
    """
    commands = commands_of(DOCUMENTS[name].read_text())
    assert commands
    for command in commands:
        first, *others = command.split() or [""]
        if first == "help":
            placeholders = {"TOPIC", "GROUP", "GROUP=CHOICE"}
            help_main([topic for topic in others if topic not in placeholders])
        if first in COMMANDS:
            continue
        words = [
            word for word in re.sub("[\"']", "", command).split() if word not in WITHOUT_VALUES
        ]
        # The first point of a sweep.
        check(composed(*(re.sub(r"(?<==)([^\[,]+),.*", r"\1", word) for word in words)))
