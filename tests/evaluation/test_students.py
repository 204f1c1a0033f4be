"""Weights reach the loss; augmentation, resuming and statistics do what they say."""

from __future__ import annotations

import math
from dataclasses import replace

import lightning as L
import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn.functional import cross_entropy

from ddoq.data.distilled import TrainingSet
from ddoq.engine.fit import DenoiserModule
from ddoq.engine.student import Normalize, StudentModule, train_student
from ddoq.engine.trainer import even_ends, fit_steps
from ddoq.evaluation.protocol import Protocol
from ddoq.evaluation.statistics import summarize
from ddoq.students import ConvNet

PROTOCOL = Protocol(num_steps=60, batch_size=20, learning_rate=0.02, num_evaluations=2, num_seeds=1)


def toy(num: int = 40) -> TrainingSet:
    """Two classes, dark and bright, 8×8."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(num) % 2
    images = (60 + 120 * labels)[:, None, None, None] + torch.randint(
        -40, 40, (num, 1, 8, 8), generator=random
    )
    return TrainingSet.of_images(images.to(torch.uint8), labels, 2)


def trained(data: TrainingSet, test, seed: int = 0, protocol: Protocol = PROTOCOL):
    torch.manual_seed(seed)
    network = ConvNet(1, 2, 8, depth=1, width=4)
    measures = train_student(network, data, test, protocol, Normalize([0.5], [0.25]), seed, "cpu")
    return measures["accuracies"], network


def test_loss_is_the_weighted_mean_of_cross_entropies():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    weights = torch.tensor([0.0, 3.0, 1.0, 0.5, 0.5, 1.0])
    data = replace(toy(6), weights=weights, temperature=2.0)
    module = StudentModule(network, data, PROTOCOL, Normalize([0.0], [1.0]))
    loss = module.training_step({"rows": torch.arange(6), "draws": {}}, 0)
    logits = network(data.images.float() / 255) / 2.0
    expected = (
        sum(
            w * cross_entropy(logits[i : i + 1], data.targets[i : i + 1])
            for i, w in enumerate(weights)
        )
        / 6
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_images_of_weight_zero_teach_nothing():
    """Half of the set is labelled the wrong way round.

    With weight zero it must not matter, with weight one it must.
    """
    clean = toy()
    labels = clean.targets.argmax(1)
    wrong = TrainingSet(
        clean.images.repeat(3, 1, 1, 1),
        torch.cat([clean.targets, *[clean.targets.flip(1)] * 2]),
        torch.cat([torch.ones(40), torch.zeros(80)]),
        torch.cat([labels, 1 - labels, 1 - labels]),
        torch.ones(120),
    )
    test = (clean.images, labels)
    assert trained(wrong, test)[0][-1] == 1.0
    misled = replace(wrong, weights=torch.ones(120))
    assert trained(misled, test)[0][-1] < 0.5


def test_student_is_a_function_of_its_seed():
    data = toy()
    test = (data.images, data.targets.argmax(1))
    first, second, third = (trained(data, test, seed)[1].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_every_image_is_seen_equally_often_and_the_last_accuracy_is_of_the_last_step():
    seen = torch.zeros(7)

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 2)

        def forward(self, images):
            if self.training:
                seen.scatter_add_(0, images[:, 0, 0, 0].round().long(), torch.ones(len(images)))
            return self.layer(images[:, :, 0, 0])

    images = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1)
    data = TrainingSet.of_images(images, torch.arange(7) % 2, 2)
    protocol = Protocol(num_steps=14, batch_size=5, num_evaluations=3)
    test = images, torch.arange(7) % 2
    accuracies = train_student(
        Counting(), data, test, protocol, Normalize([0.0], [1 / 255]), 0, "cpu"
    )["accuracies"]
    assert seen.tolist() == [10.0] * 7  # 14 batches of 5 are 10 epochs of 7
    assert len(accuracies) == 3


def test_history_has_the_mean_loss_of_the_steps_since_the_evaluation_before():
    """Bug: the loss of all steps so far, or of the last step only,
    or steps that are those of another protocol.
    """

    class Surer(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused, self.calls = nn.Parameter(torch.zeros(())), 0

        def forward(self, images):
            self.calls += self.training
            return torch.tensor([[self.calls, 0.0]]).expand(len(images), 2) + self.unused

    images = torch.zeros(6, 1, 1, 1, dtype=torch.uint8)
    data = TrainingSet.of_images(images, torch.zeros(6, dtype=torch.long), 2)
    protocol = Protocol(num_steps=7, batch_size=3, num_evaluations=2)
    test = images, torch.zeros(6, dtype=torch.long)
    measures = train_student(Surer(), data, test, protocol, Normalize([0.0], [1.0]), 0, "cpu")
    ends = protocol.evaluation_steps(6)
    losses = [math.log1p(math.exp(-call)) for call in range(1, 8)]
    assert [point["step"] for point in measures["history"]] == ends and ends[-1] == 7
    expected = [np.mean(losses[: ends[0]]), np.mean(losses[ends[0] :])]
    assert [point["loss"] for point in measures["history"]] == pytest.approx(expected, rel=1e-5)
    assert [point["top1"] for point in measures["history"]] == measures["accuracies"] == [1.0, 1.0]


class _Killed(L.Callback):
    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, *_) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


def test_interrupted_fit_resumes_to_the_same_weights(tmp_path, monkeypatch):
    """Killed between two checkpoints, the fit ends with the weights, and the average,
    of an undisturbed one.
    """
    from diffusers import DDIMScheduler

    from ddoq.engine import trainer as engine
    from ddoq.stages.fit_generator import build_transformer

    fit = {"num_heads": 1, "head_dim": 8, "num_layers": 1, "patch_size": 2}

    def run(checkpoint, kill_at=None):
        torch.manual_seed(0)
        module = DenoiserModule(
            build_transformer(fit, (1, 4, 4), 3),
            DDIMScheduler(prediction_type="v_prediction"),
            12,
            1e-2,
            0.9,
        )

        def batch(step):
            random = torch.Generator().manual_seed(step)
            return (
                torch.randn(4, 1, 4, 4, generator=random),
                torch.randint(4, (4,), generator=random),
                torch.randn(4, 1, 4, 4, generator=random),
                torch.randint(1000, (4,), generator=random),
            )

        original = engine.make_trainer
        if kill_at:
            monkeypatch.setattr(
                engine,
                "make_trainer",
                lambda a, **o: original(
                    a, **o | {"callbacks": [*o["callbacks"], _Killed(kill_at)]}
                ),
            )
        try:
            fit_steps(
                module, batch, even_ends(12, 4), title="t", accelerator="cpu", checkpoint=checkpoint
            )
        except (KeyboardInterrupt, SystemExit):
            pass
        finally:
            monkeypatch.setattr(engine, "make_trainer", original)
        return module

    whole = run(tmp_path / "a.ckpt").state_dict()
    interrupted = run(tmp_path / "b.ckpt", kill_at=8).state_dict()
    assert any(not torch.equal(whole[name], interrupted[name]) for name in whole)
    resumed = run(tmp_path / "b.ckpt").state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_summary_is_students_t_interval():
    values = [0.91, 0.94, 0.92, 0.95, 0.90]
    summary = summarize(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (summary.mean, summary.std, summary.num) == (
        pytest.approx(0.924),
        pytest.approx(np.std(values, ddof=1)),
        5,
    )
    assert (summary.mean - summary.ci95, summary.mean + summary.ci95) == (
        pytest.approx(low),
        pytest.approx(high),
    )
    assert math.isnan(summarize([0.5]).ci95)
