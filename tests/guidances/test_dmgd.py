"""DMGD: Sinkhorn's plan, its gradient, and the embedded class."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from torch.nn.functional import normalize

from ddoq.guidances import DMGD, Cells, Finished
from ddoq.guidances.transport import sinkhorn, transport_cost
from support.steering import make_step, random_tensors, some_points, tiny_dit
from support.tiny_models import save_dit


@pytest.fixture(scope="module")
def dit_folder(tmp_path_factory):
    return save_dit(tmp_path_factory.mktemp("dit"), num_classes=10)


def problem(num_rows: int = 6, num_columns: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Return costs ``[2, N, K]`` and masses ``[2, K]``, float64."""
    random = torch.Generator().manual_seed(5)
    cost = torch.rand(2, num_rows, num_columns, generator=random, dtype=torch.float64)
    masses = torch.rand(2, num_columns, generator=random, dtype=torch.float64) + 0.1
    return cost, masses / masses.sum(1, keepdim=True)


def test_after_many_rounds_the_plan_is_that_of_pot():
    cost, masses = problem()
    rows = torch.full((2, 6), 1 / 6, dtype=torch.float64)
    plan = sinkhorn(cost, rows, masses, 0.1, 2000)
    for own, own_cost, own_masses in zip(plan, cost, masses, strict=True):
        expected = ot.sinkhorn(np.full(6, 1 / 6), own_masses.numpy(), own_cost.numpy(), 0.1)
        assert np.allclose(own.numpy(), expected, atol=1e-7)


def test_columns_without_mass_are_as_if_they_were_not_there():
    cost, masses = problem()
    padded = torch.cat([cost, torch.zeros(2, 6, 1)], 2), torch.cat([masses, torch.zeros(2, 1)], 1)
    cost.requires_grad_()
    assert torch.allclose(transport_cost(*padded, 0.1, 5), transport_cost(cost, masses, 0.1, 5))
    for size in (1.0, 1e3):
        wide = torch.cat([size * cost, size * cost[:, :, :1]], 2)
        transport_cost(wide, padded[1], 0.1, 5).sum().backward()
        assert cost.grad.isfinite().all()


def published_loss(clean, memory, points, masses) -> float:
    """Return DMGD's loss of one image, written out with NumPy, float64."""
    images = np.concatenate([memory, clean[None]]).reshape(len(memory) + 1, -1)
    points = points.reshape(len(points), -1)
    images = images / np.linalg.norm(images, axis=1, keepdims=True)
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    distances = np.linalg.norm(images[:, None] - points[None], axis=2)
    plan = np.exp(-distances / 0.1)
    for _ in range(5):
        plan = plan / plan.sum(1, keepdims=True) / len(images)
        plan = plan / plan.sum(0, keepdims=True) * masses
    return float((plan * distances).sum())


@pytest.mark.parametrize("masses", [True, False])
@pytest.mark.parametrize("num_finished", [0, 3])
def test_the_step_goes_down_the_published_loss_by_finite_differences(masses, num_finished):
    step = make_step(2, num_finished)
    shift = DMGD(scale=0.7, masses=masses, semantic=False).shift(step).mean
    for image in range(2):
        own = step.cells[image]
        marginal = own.masses.double().numpy() if masses else np.full(3, 1 / 3)
        parts = [part.double().numpy() for part in (step.memory[image], own.points)]
        direction = random_tensors(*step.clean.shape[1:], seed=9).double().numpy()
        clean, small = step.clean[image].double().numpy(), 1e-4
        up, down = (
            published_loss(clean + sign * small * direction, *parts, marginal) for sign in (1, -1)
        )
        slope = (up - down) / (2 * small) / step.alpha**0.5  # with respect to the sample
        moved = float((shift[image].double().numpy() * direction).sum())
        assert moved == pytest.approx(-0.7 * step.sigma * slope, rel=1e-3)


def test_classes_with_different_numbers_of_points_do_not_disturb_one_another():
    step = make_step(2)
    fewer = Cells(step.cells[1].points[:2], torch.tensor([0.25, 0.75]))
    guidance = DMGD(semantic=False)
    mixed = guidance.shift(make_step(2, cells=[step.cells[0], fewer])).mean
    assert torch.allclose(mixed[0], guidance.shift(step).mean[0], atol=1e-7)
    assert not torch.allclose(mixed[1], guidance.shift(step).mean[1], atol=1e-7)


def test_it_acts_at_the_published_steps_of_50():
    guidance = DMGD(semantic=False)
    for times in (range(0, 1000, 20), np.linspace(0, 999, 50).round(), range(19, 1000, 20)):
        acting = [
            number
            for number, time in enumerate(times)
            if guidance.acts(make_step(1, time=int(time), number=number))
        ]
        assert acting == list(range(30, 46))


def test_the_memory_matters_and_masses_do(dit_folder):
    points, finished = some_points(), Finished()
    finished.add(points.labels, [91, 92, 93, 94], some_points(seed=8).latents)

    def sample(memory: Finished | None = None, **options) -> torch.Tensor:
        guidance = DMGD(scale=30.0, semantic=False, **options)
        return tiny_dit(dit_folder, guidance).sample(points, memory)

    alone = sample()
    assert not torch.allclose(alone, sample(finished), atol=1e-4)
    assert not torch.allclose(alone, sample(masses=False), atol=1e-4)


def test_without_strength_it_gives_the_unguided_bytes(dit_folder):
    unguided = tiny_dit(dit_folder).sample(some_points())
    guidance = DMGD(scale=0.0, semantic=False)
    assert torch.equal(tiny_dit(dit_folder, guidance).sample(some_points()), unguided)


def test_an_image_does_not_depend_on_its_batch(dit_folder):
    generator = tiny_dit(dit_folder, DMGD(scale=5.0))
    together = generator.sample(some_points())
    apart = torch.cat(
        [generator.sample(some_points().part(slice(i, i + 1))) for i in range(len(together))]
    )
    assert torch.allclose(together, apart, atol=1e-4)


# --- semantic matching ------------------------------------------------------------------------


def embedded(share: float, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """Return three classes and three null classes, and what is made of them."""
    table = random_tensors(11, 64)
    own = table[torch.tensor([0, 1, 2, 10, 10, 10])]
    moment = make_step(3, time=int(1000 * share))
    replace = DMGD(**options).embed(moment)
    return own, replace(own, table)


def test_the_class_comes_out_of_noise():
    own, noise = embedded(0.95)
    own, early = embedded(0.85)
    own, late = embedded(0.51)
    for replaced in (noise, early, late):
        both, wanted = (rows.view(2, 3, 64) for rows in (replaced, own))
        assert torch.allclose(both.mean((0, 2)), wanted.mean((0, 2)), atol=1e-5)
        assert torch.allclose(both.std((0, 2)), wanted.std((0, 2)), atol=1e-5)

    def alike(replaced: torch.Tensor) -> float:
        return (normalize(replaced[:3]) * normalize(own[:3])).sum(1).mean().item()

    assert abs(alike(noise)) < 0.25 < alike(early) < 0.999 < alike(late) + 1e-6
    assert DMGD().embed(make_step(3, time=480)) is None


def test_a_mixture_is_the_published_formula():
    table = random_tensors(11, 64)
    own = table[torch.tensor([3])]
    step = make_step(1, time=700, conditions=torch.tensor([3]))
    replaced = DMGD(semantic_noise=0.0, semantic_other=0.01).embed(step)(own, table)
    kept = (900 - 700) / 400
    candidates = []
    for other in range(10):
        mixture = kept**0.5 * own + 0.01 * (1 - kept) ** 0.5 * table[other]
        candidates.append((mixture - mixture.mean()) / mixture.std() * own.std() + own.mean())
    fits = [torch.allclose(replaced, candidate, atol=1e-6) for candidate in candidates]
    assert sum(fits) == 1 and not fits[3]


def test_it_reaches_every_block_of_the_network(dit_folder):
    points = some_points()
    plain = tiny_dit(dit_folder).sample(points)
    generator = tiny_dit(dit_folder, DMGD(scale=0.0))
    assert not torch.allclose(plain, generator.sample(points), atol=1e-3)
    assert not any(module._forward_hooks for module in generator.network.modules())
    assert torch.equal(tiny_dit(dit_folder, DMGD(scale=0.0, semantic=False)).sample(points), plain)
