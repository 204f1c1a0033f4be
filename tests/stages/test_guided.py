"""Guided images as a stage: rounds of a class, killed and shared work, every guidance in a run."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree, rmtree

import pytest
import torch

from ddoq.config.choices import targets
from ddoq.engine.memory import FittingBatches
from ddoq.generators import Points
from ddoq.guidances import Finished
from ddoq.stages.rounds import batches_of_classes, in_rounds
from support.processes import new_python
from support.runs import TEACHER, TINY, artefacts, run_here
from support.steering import SHAPE, random_tensors

GUIDED = (
    *(word for word in TINY if not word.startswith("ablation")),
    *("ablation=none", "baselines=none", "measure.curve=[]", "measure.num_folds=0"),
    *("generator.start=noise", "generator.strength=1", "generator.num_steps=10"),
    *("dataset.train_per_class=30", "ipc=3", "protocol.num_seeds=1", "protocol.num_steps=20"),
    *("student.width=4", "run.until=generate"),
)


def test_a_batch_holds_all_points_of_its_classes():
    labels = torch.arange(10).repeat_interleave(3)
    batches = batches_of_classes(labels, 64)
    assert [len(batch) for batch in batches] == [15, 15]
    assert sorted(sum(batches, [])) == list(range(30))
    assert all(len(labels[batch].unique()) == 5 for batch in batches)
    assert [len(batch) for batch in batches_of_classes(labels, 1)] == [3] * 10


class Counts:
    """Stands for a generator: an image says how many of its class were there before it."""

    def __init__(self, fails_above: int):
        self.fails_above = fails_above

    def generate(self, points, finished: Finished) -> torch.Tensor:
        if len(points) > self.fails_above:
            raise MemoryError
        before = finished.of(points.labels, points.seeds, points.latents).shape[1]
        finished.add(points.labels, points.seeds, points.latents)
        return torch.full((len(points), 1, 2, 2), float(before))


@pytest.mark.parametrize("fails_above", [99, 2])
def test_an_image_sees_those_of_its_class_before_it_also_where_memory_is_short(fails_above):
    index = torch.tensor([0, 1, 2, 0, 1, 0, 1, 2])  # the second class has fewer points
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    points = Points(random_tensors(8, *SHAPE), labels, labels, list(range(8)))
    made = in_rounds(Counts(fails_above), points, index, FittingBatches("generate"))
    assert torch.equal(made[:, 0, 0, 0], index.float())


@pytest.fixture(scope="module")
def dmgd(tmp_path_factory) -> Path:
    """The outputs of a run under DMGD."""
    outputs = tmp_path_factory.mktemp("dmgd")
    run_here(*GUIDED, "guidance=dmgd", "guidance.scale=20", f"paths.outputs={outputs}")
    return outputs


def test_a_killed_batch_with_memory_ends_with_the_same_bytes(dmgd, tmp_path):
    whole, outputs = artefacts(dmgd, "generate"), tmp_path / "outputs"
    copytree(dmgd, outputs)
    (manifest,) = (outputs / "store" / "generate").glob("*/manifest.json")
    manifest.unlink()
    pictures = sorted(manifest.parent.rglob("*.png"))
    for picture in pictures[4:7]:  # of two classes, the last of one and the first of the next
        picture.unlink()
    rmtree(outputs / "runs")
    run_here(*GUIDED, "guidance=dmgd", "guidance.scale=20", f"paths.outputs={outputs}")
    assert len(pictures) == 30 and artefacts(outputs, "generate") == whole


def test_the_number_of_processes_does_not_matter(dmgd, tmp_path):
    outputs = tmp_path / "outputs"
    copytree(dmgd, outputs)
    rmtree(outputs / "store" / "generate")
    words = [word for word in GUIDED if not word.startswith("trainer.processes")]
    words += ["guidance=dmgd", "guidance.scale=20", "trainer.processes=2"]
    done = new_python(*words, f"paths.outputs={outputs}")
    assert done.returncode == 0, done.stderr
    assert artefacts(outputs, "generate") == artefacts(dmgd, "generate")


def test_masses_change_images_and_strength_zero_changes_none(dmgd, tmp_path):
    def run(name: str, *words: str) -> dict[str, bytes]:
        outputs = tmp_path / name
        copytree(dmgd, outputs)
        rmtree(outputs / "store" / "generate")
        run_here(*GUIDED, f"paths.outputs={outputs}", *words)
        return {
            Path(file).name + Path(file).parent.name: b
            for file, b in artefacts(outputs, "generate").items()
        }

    equal = run("equal", "guidance=dmgd", "guidance.scale=20", "guidance.masses=false")
    masses = run("masses", "guidance=dmgd", "guidance.scale=20")
    assert equal.keys() == masses.keys() and equal != masses
    nothing = run("nothing", "guidance=dmgd", "guidance.scale=0", "guidance.semantic=false")
    assert run("unguided") == nothing


@pytest.mark.parametrize("guidance", sorted(set(targets("guidance")) - {"dmgd"}))
def test_every_guidance_makes_images_of_a_fitted_dit(dmgd, tmp_path, guidance):
    outputs = tmp_path / "outputs"
    copytree(dmgd, outputs)
    rmtree(outputs / "store" / "generate")
    short = ("guidance.fit.epochs=2",) if guidance in ("igd", "ot") else ()
    teacher = TEACHER if guidance == "uag" else ()
    run_here(*GUIDED, f"guidance={guidance}", *short, *teacher, f"paths.outputs={outputs}")
    (manifest,) = (outputs / "store" / "generate").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["facts"]["num_images"] == 30
