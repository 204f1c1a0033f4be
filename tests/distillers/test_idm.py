"""IDM: its queue of networks, what trains them, the cross-entropy."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ddoq.distillers import DM, IDM
from ddoq.distillers.apprentice import Apprentice
from support.distilling import Recorded, digits_task, fitted, loss_of, slope_of, small_net

OPTIONS = {"num_steps": 12, "learning_rate": 1.0, "dsa": "", "batch_size": 16}
METHOD = IDM(
    **OPTIONS, cross_entropy=0.1, every=2, first_networks=2, most_networks=4, train_steps=10
)


def weights(network: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(network.parameters()).detach().clone()


def test_a_network_learns_as_torchs_sgd_makes_it():
    task, make = digits_task(), small_net(1, 8)
    apprentice, network = Apprentice(make(0).requires_grad_(False)), make(0)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    right = 0
    for rows in torch.arange(60).split(20):
        images, labels = task.normalized(rows), task.labels[rows]
        apprentice.learn(images, labels)
        optimizer.zero_grad()
        logits = network(images)
        cross_entropy(logits, labels).backward()
        optimizer.step()
        right += int((logits.argmax(1) == labels).sum())
    assert torch.allclose(weights(apprentice.network), weights(network), atol=1e-6)
    assert apprentice.percent_right.item() == pytest.approx(100 * right / 60)
    apprentice.restart(make(1))
    assert torch.equal(weights(apprentice.network), weights(make(1)))
    assert apprentice.percent_right == 0 == apprentice.velocity.abs().max()


def test_networks_join_are_trained_and_leave():
    task, seen = digits_task(METHOD), Recorded()
    fresh = [weights(task.network(number)) for number in range(8)]
    assert len(task.networks) == 4
    for step in range(12):
        places = METHOD._chosen(task, step, "trained", 2)
        assert max(places) < min(4, 2 + step // 2)  # only of those that have joined
        METHOD._renew(task, step)
        if step and step % 2 == 0 and (number := 1 + step // 2) >= 4:
            assert torch.equal(weights(task.networks[number % 4].network), fresh[number])
        METHOD.step(task, METHOD.batch(task, step), seen)
        assert all(task.networks[place].num_seen > 0 for place in places)
    assert task.networks[0].percent_right >= 0 and len(seen.closures) == 12


def test_a_network_that_knows_nothing_leaves_dm():
    method = replace(METHOD, num_trained=0)
    loss = loss_of(method, digits_task(method), 0)
    task = digits_task(METHOD)
    dm = DM(**OPTIONS)
    task._make_network = lambda *_, make=task._make_network: make(
        METHOD._chosen(task, 0, "matched", 1)[0]
    )
    assert loss().item() == pytest.approx(loss_of(dm, task, 0)().item(), rel=1e-5)


def test_cross_entropy_counts_by_accuracy_and_is_differentiable():
    quiet, loud = (replace(METHOD, cross_entropy=weight, num_trained=0) for weight in (0.0, 0.5))

    def after_training(method):
        task = digits_task(method, ipc=3)
        for apprentice in task.networks:
            apprentice.num_right += 30
            apprentice.num_seen += 40
        return task

    without, with_it = (loss_of(m, after_training(m), 0)().item() for m in (quiet, loud))
    task = after_training(loud)
    (place,) = loud._chosen(task, 0, "matched", 1)
    logits = task.networks[place].network(task.synthetic().flatten(0, 1))
    entropy = cross_entropy(logits, task.synthetic.labels).item()
    assert with_it - without == pytest.approx(0.5 * 75 * entropy * 10, rel=1e-4)
    by_gradient, by_differences = slope_of(loud, after_training(loud))
    assert by_differences == pytest.approx(by_gradient, rel=1e-4)


@pytest.mark.parametrize("dies_at", [5, 9])
def test_networks_of_a_cut_fit_go_on_as_they_were(dies_at, tmp_path):
    method = replace(METHOD, partition=2)
    whole = fitted(method, digits_task(method))
    with pytest.raises(KeyError):
        fitted(method, digits_task(method), tmp_path / "last.ckpt", dies_at)
    resumed = fitted(method, digits_task(method), tmp_path / "last.ckpt")
    assert torch.equal(whole.task.pixels(), resumed.task.pixels())
    pairs = zip(whole.task.networks, resumed.task.networks, strict=True)
    assert all(torch.equal(a.velocity, b.velocity) for a, b in pairs)
