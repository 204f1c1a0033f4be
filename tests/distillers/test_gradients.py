"""DC and DSA: closed forms, finite differences, one image per class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ddoq.distillers import DC
from ddoq.distillers.gradients import distance
from ddoq.evaluation.dsa import OPERATIONS
from ddoq.utils.seeding import item_generator
from support.distilling import Recorded, digits_task, fitted, loss_of, slope_of


def dc(**options) -> DC:
    defaults = {"num_steps": 4, "learning_rate": 1.0, "dsa": "", "batch_size": 8}
    return DC(**defaults | {"loops": 2, "epochs": 1} | options)


def gradients(*shapes) -> list[torch.Tensor]:
    generator = item_generator("gradients", shapes)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def test_rows_are_outputs_of_layers_and_biases_do_not_count():
    real, fake = gradients((3, 2, 3, 3), (3,), (4, 5)), gradients((3, 2, 3, 3), (4, 5))
    fake = [fake[0], torch.zeros(3), fake[1]]

    def rows(a, b) -> float:
        a, b = (part.numpy().reshape(len(part), -1) for part in (a, b))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return float((1 - (a * b).sum(1) / lengths).sum())

    expected = rows(real[0], fake[0]) + rows(real[2], fake[2])
    assert distance(real, fake).item() == pytest.approx(expected, rel=1e-5)
    a, b = (torch.cat([part.flatten() for part in side]) for side in (real, fake))
    cosine = 1 - torch.nn.functional.cosine_similarity(a, b, dim=0)
    assert distance(real, fake, "cosine").item() == pytest.approx(cosine.item(), rel=1e-5)
    assert distance(real, fake, "mse").item() == pytest.approx(float((a - b).square().sum()))
    scaled = [2 * part for part in real]
    assert distance(real, scaled).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kind", ["rows", "cosine", "mse"])
@pytest.mark.parametrize("dsa", ["", "scale"])
def test_the_gradient_is_that_of_finite_differences(kind, dsa):
    method = dc(dsa=dsa, distance=kind, loops=1)
    by_gradient, by_differences = slope_of(method, digits_task(method))
    assert by_differences == pytest.approx(by_gradient, rel=1e-4)


@pytest.mark.parametrize("dsa", ["", *OPERATIONS])
def test_a_set_that_is_its_own_batch_has_no_distance(dsa):
    """Real and synthetic images are augmented alike."""
    method = dc(dsa=dsa, batch_size=3, loops=1)
    task = digits_task(method, ipc=3)
    task.synthetic.images.data = task.normalized(method.batch(task, 0).rows)
    assert loss_of(method, task, 0)().item() == pytest.approx(0, abs=2e-2)
    task.synthetic.images.data = task.synthetic.images.data.roll(1, 0)
    assert loss_of(method, task, 0)().item() > 1


@pytest.mark.parametrize("dsa", ["", "_".join(OPERATIONS)])
def test_one_image_per_class(dsa):
    method = dc(num_steps=12, dsa=dsa, loops=3)
    module = fitted(method, digits_task(method, ipc=1))
    assert module.losses.isfinite().all() and module.task.pixels().shape == (10, 1, 8, 8)


def test_networks_are_trained_on_the_images_and_replaced_after_their_loops():
    method, seen = dc(num_steps=6, loops=3, epochs=20, start="random", network_rate=0.1), Recorded()
    task = digits_task(method, ipc=5)
    images = task.synthetic().detach().flatten(0, 1)

    def loss() -> float:
        return cross_entropy(task.networks[0](images), task.synthetic.labels).item()

    def weights(network: nn.Module) -> torch.Tensor:
        return nn.utils.parameters_to_vector(network.parameters()).detach()

    losses = []
    for step in range(6):
        method.step(task, method.batch(task, step), seen)
        losses.append(loss())
    assert losses[1] < losses[0] < 2.2 and losses[1] == losses[2]  # no training before the next
    method.step(task, method.batch(task, 5), seen)
    assert torch.equal(weights(task.networks[0]), weights(task.networks[0]))
    method.step(task, method.batch(task, 3), seen)
    fresh = digits_task(method, ipc=5)
    method.step(fresh, method.batch(fresh, 3), seen)
    assert torch.equal(weights(task.networks[0]), weights(fresh.networks[0]))
    assert not torch.equal(weights(task.networks[0]), weights(task.network(1)))


def test_batch_norm_has_the_statistics_of_real_images():
    method = dc(num_steps=6)
    module = fitted(method, digits_task(method, norm="batch"))
    assert module.losses.isfinite().all()
    norm = next(
        part for part in module.task.networks[0].modules() if "BatchNorm" in str(type(part))
    )
    assert norm.num_batches_tracked == 1 and norm.running_mean.abs().max() > 0
