"""Quantizers against closed forms, exact transport and their own definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.datasets import load_digits

from ddoq.errors import ConfigError
from ddoq.quantizers import (
    D4M,
    ClassCodebooks,
    Clip,
    FaissKMeans,
    KMeans,
    Mass,
    Nearest,
    Power,
    RandomSubset,
    Shrink,
    Uniform,
)
from ddoq.quantizers.codebook import codebook_from_centroids
from ddoq.quantizers.measures import effective_size, squared_distances, w2_squared


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    digits = load_digits()
    return torch.from_numpy(digits.images[digits.target == 3]).float().view(-1, 1, 8, 8)


ALL = [KMeans(10), FaissKMeans(10), D4M(10), D4M(10, km_expand=5), RandomSubset(10), Nearest(10)]


@pytest.mark.parametrize("quantizer", ALL, ids=lambda q: f"{type(q).__name__}-{getattr(q, 'backend', '')}")
def test_codebook_is_consistent_with_its_definition(quantizer, latents):
    codebook = quantizer.fit(latents, generator=generator())
    distances = squared_distances(latents, codebook.centroids)
    assert codebook.centroids.shape == (10, 1, 8, 8)
    assert codebook.counts.sum() == len(latents)
    assert codebook.weights.sum().item() == pytest.approx(1)
    assert torch.equal(codebook.assignments, distances.argmin(1))
    assert torch.equal(codebook.nearest, distances.argmin(0))
    assert codebook.distortion == pytest.approx(distances.min(1).values.mean().item())
    assert 0 < codebook.distortion < codebook.variance


@pytest.mark.parametrize("quantizer", ALL, ids=lambda q: f"{type(q).__name__}-{getattr(q, 'backend', '')}")
def test_same_generator_same_codebook(quantizer, latents):
    first, second = (quantizer.fit(latents, generator=generator(7)) for _ in range(2))
    assert torch.equal(first.centroids, second.centroids)


@pytest.mark.parametrize("quantizer", [KMeans(10), D4M(10), RandomSubset(10)], ids=lambda q: type(q).__name__)
def test_w2_equals_distortion_for_masses_and_is_larger_for_uniform(quantizer, latents):
    codebook = quantizer.fit(latents, generator=generator())
    masses = w2_squared(latents, codebook.centroids, codebook.weights)
    uniform = w2_squared(latents, codebook.centroids, torch.full((10,), 0.1))
    assert masses == pytest.approx(codebook.distortion, rel=1e-6)
    assert uniform > masses


def test_one_centroid_is_the_mean_and_all_centroids_have_no_distortion(latents):
    one = KMeans(1).fit(latents, generator=generator())
    assert torch.allclose(one.centroids[0], latents.mean(0), atol=1e-4)
    assert one.distortion == pytest.approx(one.variance, rel=1e-5)
    assert KMeans(50).fit(latents[:50], generator=generator()).distortion < 1e-6


def test_uniform_distribution_has_the_closed_form_quantizer():
    """U(0, 1): points (2k - 1) / 2K, masses 1/K, distortion 1 / 12 K^2 (Graf & Luschgy 2000)."""
    grid = ((torch.arange(2000) + 0.5) / 2000).view(-1, 1)
    codebook = KMeans(4, num_restarts=5).fit(grid, generator=generator())
    order = codebook.centroids.flatten().argsort()
    assert torch.allclose(codebook.centroids.flatten()[order], torch.tensor([1, 3, 5, 7]) / 8, atol=1e-3)
    assert torch.allclose(codebook.weights[order], torch.full((4,), 0.25, dtype=torch.float64), atol=1e-3)
    assert codebook.distortion == pytest.approx(1 / (12 * 16), abs=1e-5)


def test_normal_distribution_has_the_closed_form_quantizer():
    """N(0, 1), K = 4: Max 1960. Equal masses would be 0.25; the optimal ones are not."""
    quantiles = torch.special.ndtri((torch.arange(20000, dtype=torch.float64) + 0.5) / 20000).view(-1, 1).float()
    codebook = KMeans(4, num_restarts=3).fit(quantiles, generator=generator())
    order = codebook.centroids.flatten().argsort()
    points, masses = codebook.centroids.flatten()[order], codebook.weights[order]
    assert torch.allclose(points, torch.tensor([-1.5104, -0.4528, 0.4528, 1.5104]), atol=4e-3)
    assert torch.allclose(masses.float(), torch.tensor([0.1631, 0.3369, 0.3369, 0.1631]), atol=3e-3)
    assert codebook.distortion == pytest.approx(0.11748, abs=1e-3)


def test_kmeans_is_stationary_and_no_worse_than_every_other_quantizer(latents):
    codebook = KMeans(10).fit(latents, generator=generator())
    for k in range(10):
        members = latents[codebook.assignments == k]
        assert torch.allclose(members.mean(0), codebook.centroids[k], atol=1e-3)
    for other in (D4M(10), RandomSubset(10), Nearest(10)):
        assert codebook.distortion <= other.fit(latents, generator=generator()).distortion


def test_d4m_is_one_pass_of_partial_fit_that_drops_the_remainder(latents):
    """The released procedure, written out: batches of km_expand * K of the shuffled class, seed 0."""
    shuffled = latents[torch.randperm(len(latents), generator=generator(1))].flatten(1).numpy()
    engine = MiniBatchKMeans(10, random_state=0, batch_size=20, n_init="auto")
    for i in range(len(shuffled) // 20):
        engine.partial_fit(shuffled[20 * i : 20 * (i + 1)])
    found = D4M(10, km_expand=2).fit(latents, generator=generator(1))
    assert np.allclose(found.centroids.flatten(1).numpy(), engine.cluster_centers_, atol=1e-4)
    assert found.counts.sum() == len(latents)  # its masses, unlike its centres, see every latent


def test_d4m_fails_on_a_class_smaller_than_a_batch_with_a_remedy(latents):
    with pytest.raises(ConfigError, match="km_expand"):
        D4M(10, km_expand=10).fit(latents[:99], generator=generator())


def test_selections_are_real_and_distinct(latents):
    for quantizer in (RandomSubset(50), Nearest(50)):
        codebook = quantizer.fit(latents, generator=generator())
        assert torch.allclose(latents[codebook.nearest], codebook.centroids, atol=1e-5)
        assert len(set(codebook.nearest.tolist())) == 50


MASSES = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)


@pytest.mark.parametrize(
    "scheme", [Uniform(), Mass(), Power(0.5), Clip(0.5, 1.5), Shrink(0.5)], ids=lambda s: type(s).__name__
)
def test_weights_have_mean_one_and_keep_the_order(scheme):
    weights = scheme(MASSES)
    assert weights.mean().item() == pytest.approx(1)
    assert all(a >= b for a, b in zip(weights.tolist(), weights.tolist()[1:], strict=False))


def test_weighting_schemes_by_hand():
    assert Uniform()(MASSES).tolist() == [1, 1, 1, 1]
    assert Mass()(MASSES).tolist() == pytest.approx([2.0, 1.2, 0.6, 0.2])
    assert Power(1)(MASSES).tolist() == pytest.approx(Mass()(MASSES).tolist())
    assert Power(0)(MASSES).tolist() == pytest.approx([1] * 4)
    roots = [math.sqrt(m) for m in MASSES.tolist()]
    assert Power(0.5)(MASSES).tolist() == pytest.approx([4 * r / sum(roots) for r in roots])
    assert Shrink(0.25)(MASSES).tolist() == pytest.approx([0.75 * w + 0.25 for w in (2.0, 1.2, 0.6, 0.2)])
    clipped = [1.5, 1.2, 0.6, 0.5]
    assert Clip(0.5, 1.5)(MASSES).tolist() == pytest.approx([4 * c / sum(clipped) for c in clipped])


def test_effective_size_counts_points():
    assert effective_size(torch.ones(10)) == pytest.approx(10)
    assert effective_size(torch.tensor([1.0, 0, 0])) == pytest.approx(1)


def test_codebooks_survive_a_round_trip(tmp_path, latents):
    codebook = codebook_from_centroids(latents, latents[:3])
    rows = ClassCodebooks.rows(codebook, 5, np.arange(len(latents)) + 1000)
    both = ClassCodebooks.concatenate([rows, rows])
    both.save(tmp_path / "c.safetensors", {"ipc": 3})
    read = ClassCodebooks.load(tmp_path / "c.safetensors")
    assert torch.equal(read.latents[3:], latents[:3])
    assert read.labels.tolist() == [5] * 6 and read.index.tolist() == [0, 1, 2] * 2
    assert read.sources.tolist() == [1000, 1001, 1002] * 2
