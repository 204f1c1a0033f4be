"""BiLP's adaptive level: influence by finite differences, running bounds, what is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ddoq.distillers import DC, DM, IDM, M3D
from ddoq.distillers.influence import Influence
from ddoq.errors import ConfigError
from support.distilling import digits_task, fitted, in_double, named
from support.runs import composed

COMMON = {"num_steps": 12, "learning_rate": 1.0, "batch_size": 16, "adaptive": 0.25, "refresh": 3}
METHODS = [
    DM(**COMMON, dsa="crop"),
    DC(**COMMON, dsa="scale", loops=3, epochs=1),
    DC(**COMMON, dsa="", loops=3, epochs=1, distance="mse"),
]


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_influence_is_how_much_longer_the_step_gets_as_an_image_fades(method):
    task = in_double(digits_task(method))
    task.networks = method.networks(task)
    batch = method.batch(task, 0)
    batch.weights = batch.weights.double()
    influence, num = method.influence(task, batch), 16

    def size(label: int, image: int, faded: float) -> float:
        """The length of the step of a class, an image's weight going to the others."""
        batch.weights[label] = 1 + faded / (num - 1)
        batch.weights[label, image] = 1 - faded
        method.step(task, batch, lambda *closures: sum(part() for part in closures).backward())
        batch.weights[label] = 1
        length = task.synthetic.images.grad[label].norm().item()
        task.synthetic.images.grad = None
        return length

    for label, image in ((0, 0), (0, 7), (4, 3)):
        slope = (size(label, image, 1e-5) - size(label, image, -1e-5)) / 2e-5
        assert influence[label, image].item() == pytest.approx(slope, rel=1e-4, abs=1e-10)


def test_the_middle_weighs_and_the_ends_do_not():
    known = Influence(40, 2, share=0.5)
    rows = torch.arange(32).view(2, 16)
    assert (known.weights(rows) == 1).all()  # nothing was looked at
    sizes = torch.stack([torch.arange(16.0), 100 * torch.arange(16.0)])
    known.note(rows, sizes)
    weights = known.weights(rows)
    assert torch.equal(weights, torch.tensor([[0.0] * 4 + [2.0] * 8 + [0.0] * 4] * 2))
    assert known.weights(torch.tensor([[0, 39], [16, 38]])).tolist() == [[0, 2], [0, 2]]
    assert known.weights(torch.tensor([[0, 15], [16, 31]])).tolist() == [[1, 1], [1, 1]]
    before = known.bounds.clone()
    known.note(rows, 10 * sizes)
    assert torch.allclose(known.bounds, 0.9 * before + before)


@pytest.mark.parametrize("method", METHODS[:2], ids=named)
def test_images_are_left_out_and_a_cut_run_goes_on_as_before(method, tmp_path):
    whole = fitted(method, digits_task(method))
    checkpoint = tmp_path / "last.ckpt"
    with pytest.raises(KeyError):
        fitted(method, digits_task(method), checkpoint, dies_at=7)
    resumed = fitted(method, digits_task(method), checkpoint)
    assert torch.equal(whole.task.pixels(), resumed.task.pixels())
    sizes = whole.task.influence.sizes
    assert torch.equal(sizes.isnan(), resumed.task.influence.sizes.isnan())
    assert 160 < sizes.isfinite().sum() <= 4 * 160
    shares = (whole.task.influence.weights(whole.task.positions[0][None]) > 0).float().mean()
    assert shares < 1
    everything = replace(method, adaptive=0.0)
    unpruned = fitted(everything, digits_task(everything))
    assert not torch.equal(whole.task.pixels(), unpruned.task.pixels())


def test_methods_with_other_losses_refuse_it():
    with pytest.raises(ConfigError, match="0.25, and a kernel compares more than means") as raised:
        M3D(**COMMON, dsa="")
    assert raised.value.remedy == "set method.adaptive=0, or take dm, dc or dsa"
    with pytest.raises(ConfigError, match="0.25, and cross-entropy is no match of means"):
        IDM(**COMMON, dsa="", cross_entropy=0.0, every=3, train_steps=1)


def test_bilp_has_both_levels():
    method = composed("method=bilp")["method"]
    assert (method["prune"], method["adaptive"]) == (0.5, 0.2)
    assert composed("method=bilp_real")["method"]["adaptive"] == 0
