"""ManifoldGD and CoDA, against their formulas written out."""

from __future__ import annotations

import math

import pytest
import torch

from ddoq.guidances import MGD3, CoDA, Guidance, ManifoldGD
from ddoq.guidances.manifoldgd import normal_part
from support.steering import make_step, random_tensors, some_points, tiny_dit
from support.tiny_models import save_dit


@pytest.fixture(scope="module")
def dit_folder(tmp_path_factory):
    return save_dit(tmp_path_factory.mktemp("dit"), num_classes=10)


def test_the_normal_part_is_that_of_the_whole_covariance():
    sample, nearby = random_tensors(2, 40), random_tensors(2, 30, 40, seed=1)
    nearby[:, :, :3] *= 5  # three directions that lead
    outside, distance = normal_part(sample, nearby, 12)
    for image in range(2):
        distances = (nearby[image] - sample[image]).norm(dim=1)
        nearest = nearby[image][distances.argsort()[:12]].double()
        covariance = torch.cov(nearest.T) + 1e-5 * torch.eye(40, dtype=torch.float64)
        tangents = torch.linalg.eigh(covariance).eigenvectors[:, -3:]
        away = sample[image].double() - nearest.mean(0)
        expected = away - tangents @ (tangents.T @ away)
        assert torch.allclose(outside[image].double(), expected, atol=1e-4)
        assert distance[image] == pytest.approx(distances.min().item(), rel=1e-5)


def test_neighbours_in_fewer_directions_than_are_tangent_leave_numbers():
    nearby = random_tensors(1, 1, 40).expand(1, 20, 40).contiguous()
    outside, _ = normal_part(random_tensors(1, 40, seed=3), nearby, 12)
    assert torch.allclose(outside, random_tensors(1, 40, seed=3) - nearby[:, 0], atol=1e-5)


def test_manifoldgd_adds_a_step_of_the_published_length_to_mode_guidance():
    step = make_step()
    mode, both = MGD3().shift(step).mean, ManifoldGD().shift(step).mean
    lengths = (both - mode).flatten(1).norm(dim=1)
    # far from every neighbour, at the first of five steps that are warmed up
    assert torch.allclose(lengths, torch.full((4,), 0.1 * (1 - math.exp(-1))), atol=1e-4)
    later = make_step(number=step.number - 10, kept=step.kept)
    lengths = (ManifoldGD().shift(later).mean - mode).flatten(1).norm(dim=1)
    assert torch.allclose(lengths, torch.full((4,), 0.1), atol=1e-4)
    assert torch.equal(ManifoldGD(normal=0.0).shift(make_step()).mean, mode)


def test_what_manifoldgd_draws_belongs_to_the_image(dit_folder):
    generator = tiny_dit(dit_folder, ManifoldGD(normal=5.0))
    points = some_points()
    together = generator.sample(points)
    apart = torch.cat([generator.sample(points.part(slice(i, i + 1))) for i in range(4)])
    assert torch.allclose(together, apart, atol=1e-3)


def test_coda_is_the_published_formula():
    step = make_step(conditional=random_tensors(4, 4, 8, 8, seed=6))
    clean = (step.sample - (1 - step.alpha) ** 0.5 * step.conditional) / step.alpha**0.5
    sigma = ((1 - step.alpha) / step.alpha) ** 0.5
    factor = (step.alpha / (1 - step.alpha)) ** 0.5 * 0.05 * sigma
    assert torch.allclose(CoDA().shift(step).conditional, -factor * (step.points - clean))


def test_coda_pulls_no_clean_latent_further_than_at_the_noisiest_step_of_its_source():
    def pull(alpha: float) -> float:
        step = make_step(alpha=alpha)
        shift, way = CoDA().shift(step).conditional, step.points
        clean = (step.sample - (1 - alpha) ** 0.5 * step.conditional) / alpha**0.5
        return float(-(shift / (way - clean)).mean() * ((1 - alpha) / alpha) ** 0.5)

    assert pull(0.5) == pytest.approx(0.05) and pull(0.1) == pytest.approx(0.15, rel=1e-4)
    assert pull(1e-4) == pytest.approx(pull(1e-6), rel=1e-3) == pytest.approx(0.73, rel=1e-3)


def test_coda_is_multiplied_by_the_guidance_scale(dit_folder):
    """At the last step alone, from the same state."""

    def end(*guidances: Guidance, scale: float) -> torch.Tensor:
        options = {"num_steps": 1, "guidance_scale": scale}
        return tiny_dit(dit_folder, *guidances, **options).sample(some_points())

    def moved(scale: float) -> torch.Tensor:
        return end(CoDA(low=0.0), scale=scale) - end(scale=scale)

    assert moved(1.0).abs().mean() > 0
    assert torch.allclose(moved(3.0), 3 * moved(1.0), atol=1e-4)


@pytest.mark.parametrize("guidance", [MGD3(scale=0.0), CoDA(scale=0.0)])
def test_without_strength_they_give_the_unguided_bytes(dit_folder, guidance):
    unguided = tiny_dit(dit_folder).sample(some_points())
    assert torch.equal(tiny_dit(dit_folder, guidance).sample(some_points()), unguided)
    nothing = ManifoldGD(scale=0.0, normal=0.0)
    assert torch.equal(tiny_dit(dit_folder, nothing).sample(some_points()), unguided)


def test_coda_acts_at_22_of_25_steps():
    assert sum(CoDA().acts(make_step(1, time=time)) for time in range(1, 1000, 40)) == 22
