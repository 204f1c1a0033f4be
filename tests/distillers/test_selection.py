"""Starts, BiLP's pruning, batches by loss: which training images a method looks at."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from ddoq.distillers import DC, DM, IDM, M3D
from ddoq.distillers.apprentice import Apprentice
from ddoq.distillers.selection import early_losses, lowest, mixed
from ddoq.utils.seeding import item_generator
from support.distilling import digits_task, fitted, loss_of

METHOD = DM(num_steps=10, learning_rate=1.0, dsa="", batch_size=32)


def positions(task) -> list[torch.Tensor]:
    return [torch.nonzero(task.labels == label).flatten() for label in range(10)]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_pruning_leaves_the_images_with_the_lowest_losses_of_each_class(share):
    method = replace(METHOD, prune=share, prune_epochs=2)
    task, everything = digits_task(method), positions(digits_task())
    losses = early_losses(digits_task(), 2)
    for kept, rows in zip(task.positions, everything, strict=True):
        assert len(kept) == max(1, round((1 - share) * len(rows)))
        gone = rows[~torch.isin(rows, kept)]
        assert losses[kept].max() <= losses[gone].min()
    batch = method.batch(task, 3)
    assert all(torch.isin(a, b).all() for a, b in zip(batch.rows, task.positions, strict=True))
    assert torch.isin(task.synthetic.sources, torch.cat(task.positions)).all()


def test_the_order_of_equal_losses_is_that_of_the_rows():
    assert lowest(torch.tensor([5, 2, 7, 0]), torch.ones(8), 0.5).tolist() == [5, 2]


def test_losses_are_those_of_the_network_and_fall_with_its_epochs():
    task = digits_task()
    images = task.normalized(torch.arange(len(task.images)))
    apprentice = Apprentice(task.network("early"))
    before = apprentice.losses(images, task.labels)
    expected = cross_entropy(apprentice.network(images), task.labels, reduction="none")
    assert torch.allclose(before, expected, atol=1e-5)
    assert early_losses(task, 8).mean() < early_losses(task, 1).mean() < before.mean()


def test_weights_of_importance_are_unbiased():
    """Means over batches drawn by loss are those over the class."""
    generator = item_generator("importance")
    values = torch.randn(40, generator=generator, dtype=torch.double)
    chances = mixed(torch.rand(40, generator=generator, dtype=torch.double), 0.8)
    assert chances.sum().item() == pytest.approx(1)
    rows = chances.multinomial(200_000, True, generator=generator)
    weighted = values[rows] / (40 * chances[rows])
    error = weighted.std() / 200_000**0.5
    assert abs(weighted.mean() - values.mean()) < 4 * error
    assert (chances / (40 * chances) * values).sum().item() == pytest.approx(values.mean().item())


def test_a_batch_by_importance_has_weights_and_images_of_its_classes():
    method = replace(METHOD, importance=0.8, refresh=2)
    task = digits_task(method, ipc=3)
    batch = method.by_importance(task, method.batch(task, 0))
    assert (task.labels[batch.rows] == torch.arange(10)[:, None]).all()
    assert task.chances.std() > 0 and batch.weights.std() > 0
    assert 0.5 < batch.weights.mean() < 2
    again = METHOD.by_importance(task, METHOD.batch(task, 0))
    assert (again.weights == 1).all()


@pytest.mark.parametrize(
    "kind",
    [DM, M3D, DC, IDM],
)
def test_doubled_images_of_half_the_weight_change_nothing(kind):
    more = {"loops": 1, "epochs": 1} if kind is DC else {}
    more |= {"cross_entropy": 0.0, "every": 3, "train_steps": 1} if kind is IDM else {}
    method = kind(num_steps=1, learning_rate=1.0, dsa="", batch_size=4, **more)
    task = digits_task(method)
    batch = method.batch(task, 0)
    plain = loss_of(method, task, 0)().item()
    weights = torch.tensor([2.0, 0.0]).repeat(10, 4)
    twice = replace(batch, rows=batch.rows.repeat_interleave(2, 1), weights=weights)
    closures = []
    method.step(task, twice, lambda *more: closures.extend(more))
    if kind is not M3D:  # whose widths are those of all images of the batch
        assert sum(c() for c in closures).item() == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("dies_at", [5, 9])
def test_a_cut_fit_draws_the_same_images(dies_at, tmp_path):
    method = replace(METHOD, importance=0.5, refresh=3, prune=0.5, prune_epochs=1)
    whole = fitted(method, digits_task(method))
    with pytest.raises(KeyError):
        fitted(method, digits_task(method), tmp_path / "last.ckpt", dies_at)
    resumed = fitted(method, digits_task(method), tmp_path / "last.ckpt")
    assert torch.equal(whole.task.pixels(), resumed.task.pixels())
    assert torch.equal(whole.task.chances, resumed.task.chances)


@pytest.mark.parametrize("start", ["herding", "sensitivity"])
@pytest.mark.parametrize("partition", [1, 2])
def test_starts_are_images_of_their_class_none_twice(start, partition):
    method = replace(METHOD, start=start, partition=partition)
    task = digits_task(ipc=5)
    rows = task.positions[3]
    num = 5 * partition**2
    chosen = method._started(task, rows, item_generator("start"), num)
    assert len(chosen.unique()) == num and torch.isin(chosen, rows).all()
    assert len(method.synthetic(task)) == 50
    few = method._started(task, rows[:3], item_generator("start"), num)
    assert torch.isin(few, rows[:3]).all() and len(few.unique()) == 3


def test_herding_follows_the_mean_better_than_chance():
    task = digits_task(ipc=5)

    def miss(start: str) -> float:
        synthetic = replace(METHOD, start=start).synthetic(task)
        means = torch.stack([task.normalized(rows).mean(0) for rows in task.positions])
        return (synthetic().mean(1) - means).square().mean().item()

    assert miss("herding") < 0.5 * miss("random")
