"""Quantizers against closed forms, exact transport and their own definitions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as Reference
from sklearn.cluster import MiniBatchKMeans
from sklearn.datasets import load_digits

from ddoq.errors import ConfigError, DataError
from ddoq.quantizers import (
    CLVQ,
    D4M,
    PCA,
    Barycenter,
    BisectingKMeans,
    ClassCodebooks,
    FaissKMeans,
    GaussianMixture,
    Herding,
    KCenter,
    KMeans,
    KMedoids,
    Nearest,
    PointCloud,
    RandomSubset,
    SklearnKMeans,
    allocate,
    codebook_from_centroids,
    fit_in_space,
)
from ddoq.quantizers.allocation import class_gains
from ddoq.quantizers.measures import dispersion, effective_size, rate, squared_distances, w2_squared


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    digits = load_digits()
    return torch.from_numpy(digits.images[digits.target == 3]).float().view(-1, 1, 8, 8)


@pytest.fixture(scope="module")
def wide() -> torch.Tensor:
    """Fewer points than dimensions, as latents are:
    the digits through a fixed random map, with noise.
    """
    rng = np.random.default_rng(0)
    digits = load_digits()
    threes = digits.data[digits.target == 3]
    return torch.from_numpy(
        threes @ rng.normal(size=(64, 1000)) + 20 * rng.normal(size=(len(threes), 1000))
    ).float()


CONVERGED = [
    KMeans(10),
    KMeans(10, search="lloyd"),
    KMeans(10, search="exchange"),
    SklearnKMeans(10),
    FaissKMeans(10),
]
SELECTIONS = [RandomSubset(10), Nearest(10), Herding(10), KCenter(10), KMedoids(10)]
ALL = [
    *CONVERGED,
    *SELECTIONS,
    BisectingKMeans(10),
    GaussianMixture(10, num_components=8),
    CLVQ(10),
    CLVQ(10, batch_size=1, step_exponent=0.7),
    Barycenter(10),
    D4M(10),
    D4M(10, km_expand=5, leftover="flush"),
]


def named(quantizer) -> str:
    variant = getattr(quantizer, "search", "") or getattr(quantizer, "leftover", "")
    return f"{type(quantizer).__name__}-{variant}"


# --- what all of them promise -----------------------------------------------------------------


@pytest.mark.parametrize("quantizer", ALL, ids=named)
def test_codebook_is_consistent_with_its_definition(quantizer, latents):
    codebook = quantizer.fit(latents, generator=generator())
    distances = squared_distances(latents, codebook.centroids)
    assert codebook.centroids.shape == (10, 1, 8, 8) and codebook.centroids.dtype == torch.float32
    assert codebook.counts.sum() == len(latents)
    assert codebook.weights.sum().item() == pytest.approx(1)
    assert torch.equal(codebook.assignments, distances.argmin(1))
    assert torch.equal(codebook.counts, torch.bincount(codebook.assignments, minlength=10))
    assert torch.allclose(
        distances.gather(0, codebook.nearest[None]), distances.min(0).values, atol=1e-3
    )
    assert codebook.distortion == pytest.approx(distances.min(1).values.mean().item(), rel=1e-6)
    assert codebook.variance == pytest.approx(
        (latents - latents.mean(0)).square().sum((1, 2, 3)).mean().item(), rel=1e-5
    )


@pytest.mark.parametrize("quantizer", ALL, ids=named)
def test_same_generator_same_codebook(quantizer, latents):
    first, second = (quantizer.fit(latents, generator=generator(7)) for _ in range(2))
    assert torch.equal(first.centroids, second.centroids)


@pytest.mark.parametrize("quantizer", ALL, ids=named)
def test_hostile_classes_have_a_defined_outcome(quantizer):
    """Constant latents, duplicates, one latent, float16: a codebook.

    NaN, infinity: an error that says where.
    """
    kind = type(quantizer)
    small = kind(2) if kind is not GaussianMixture else kind(2, num_components=2)
    constant = small.fit(torch.ones(40, 3), generator())
    assert constant.distortion == pytest.approx(0, abs=1e-9) and constant.counts.sum() == 40
    duplicates = torch.tensor([[0.0, 0], [0, 0], [4, 0], [4, 0], [4, 0], [0, 4]]).repeat(5, 1)
    assert torch.isfinite(small.fit(duplicates, generator()).centroids).all()
    assert torch.allclose(
        kind(1).fit(torch.tensor([[3.0, 5.0]]), generator()).centroids, torch.tensor([[3.0, 5.0]])
    )
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(60, 5))).half()
    assert torch.allclose(
        small.fit(points, generator()).centroids,
        small.fit(points.float(), generator()).centroids,
        atol=1e-6,
    )
    points = points.float()
    points[7, 2] = torch.nan
    with pytest.raises(
        DataError, match="1 of 60 latents are NaN or infinite in float32, the first at 7"
    ):
        small.fit(points, generator())
    for value in (torch.inf, 1e200):
        points = points.double()
        points[7, 2] = value
        with pytest.raises(DataError, match="NaN or infinite"):
            small.fit(points, generator())


@pytest.mark.parametrize("quantizer", ALL, ids=named)
def test_more_centroids_than_latents_is_an_error_or_duplicates_of_mass_zero(quantizer, latents):
    kind = type(quantizer)
    with pytest.raises(DataError, match="10 centroids for a class of 4"):
        kind(10).fit(latents[:4], generator())
    codebook = kind(10, on_small_class="duplicate").fit(latents[:4], generator())
    assert codebook.centroids.shape == (10, 1, 8, 8) and codebook.distortion == pytest.approx(
        0, abs=1e-6
    )
    assert (codebook.counts > 0).sum() == 4 and codebook.counts.sum() == 4


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        (lambda: KMeans(0), "num_centroids"),
        (lambda: KMeans(3, start="wrad"), "did you mean 'ward'"),
        (lambda: KMeans(3, search="loyd"), "did you mean 'lloyd'"),
        (lambda: D4M(3, leftover="drop"), "leftover"),
        (lambda: CLVQ(3, step_exponent=0.5), "step_exponent"),
        (lambda: KMeans(3, on_small_class="dup"), "on_small_class"),
    ],
)
def test_impossible_options_are_refused(wrong, cause):
    with pytest.raises(ConfigError, match=cause):
        wrong()


@pytest.mark.parametrize(
    "quantizer", [KMeans(4), SklearnKMeans(4), FaissKMeans(4), Herding(4), Barycenter(4)], ids=named
)
def test_sample_weights_are_masses(quantizer, latents):
    """A latent of weight 2 counts like two latents, one of weight 0 not at all."""
    weights = torch.ones(len(latents))
    weights[:20], weights[20:40] = 2, 0
    weighted = quantizer.fit(latents, generator(), sample_weight=weights)
    kept = torch.cat([latents[:20], latents[:20], latents[40:]])
    assert weighted.variance == pytest.approx(PointCloud(kept).variance, rel=1e-5)
    repeated = codebook_from_centroids(kept, weighted.centroids)
    assert weighted.distortion == pytest.approx(repeated.distortion, rel=1e-5)
    if not isinstance(quantizer, Barycenter):
        assert torch.allclose(weighted.weights, repeated.weights)
    kept_rows = torch.cat([torch.arange(20), torch.arange(40, len(latents))])
    assert torch.equal(
        weighted.assignments[kept_rows],
        squared_distances(latents, weighted.centroids).argmin(1)[kept_rows],
    )
    assert (weighted.assignments[20:40] == -1).all() and weighted.counts.sum() == len(kept_rows)
    assert not set(weighted.nearest.tolist()) & set(range(20, 40))
    with pytest.raises(ConfigError, match="sample_weight"):
        quantizer.fit(PointCloud(latents), generator(), sample_weight=weights)
    with pytest.raises(DataError, match="sample_weight"):
        quantizer.fit(latents, generator(), sample_weight=-weights)


# --- theory -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "quantizer", [KMeans(10), D4M(10), RandomSubset(10), Herding(10)], ids=named
)
def test_w2_equals_distortion_for_masses_and_is_larger_for_uniform(quantizer, latents):
    codebook = quantizer.fit(latents, generator=generator())
    masses = w2_squared(latents, codebook.centroids, codebook.weights)
    uniform = w2_squared(latents, codebook.centroids, torch.full((10,), 0.1))
    assert masses == pytest.approx(codebook.distortion, rel=1e-6)
    assert uniform > masses


def test_one_centroid_is_the_mean_and_all_centroids_have_no_distortion(latents):
    for quantizer in (KMeans(1), Barycenter(1), SklearnKMeans(1)):
        one = quantizer.fit(latents, generator=generator())
        assert torch.allclose(one.centroids[0], latents.mean(0), atol=1e-4)
        assert one.distortion == pytest.approx(one.variance, rel=1e-5)
    assert KMeans(50).fit(latents[:50], generator=generator()).distortion < 1e-6


@pytest.mark.parametrize("num", [4, 5, 8])
#: With the Gram matrix and without; a cell is cut at 1/size.
@pytest.mark.parametrize("size", [2000, 20000])
def test_uniform_distribution_has_the_closed_form_quantizer(num, size):
    """U(0, 1): points (2k - 1) / 2K, masses 1/K, distortion 1 / 12 K^2 (Graf & Luschgy 2000)."""
    grid = ((torch.arange(size) + 0.5) / size).view(-1, 1)
    codebook = KMeans(num).fit(grid, generator=generator())
    order = codebook.centroids.flatten().argsort()
    tolerance = 1e-3 if size == 20000 else 3e-3
    assert torch.allclose(
        codebook.centroids.flatten()[order], (2 * torch.arange(num) + 1) / (2 * num), atol=tolerance
    )
    assert torch.allclose(
        codebook.weights[order], torch.full((num,), 1 / num, dtype=torch.float64), atol=tolerance
    )
    assert codebook.distortion == pytest.approx(1 / (12 * num**2), abs=1e-5)


#: N(0, 1): the positive half of the points, their masses,
#: the distortion (Max 1960, to twelve digits).
NORMAL = {
    4: ([0.452780034636, 1.5104176085], [0.33685123586, 0.16314876414], 0.11748184782933),
    8: (
        [0.245094178944, 0.756005281206, 1.3439092785, 2.15194570454],
        [0.191655975566, 0.161475147239, 0.106630585329, 0.0402382918656],
        0.034547760788504,
    ),
}


def normal_quantiles(size: int) -> torch.Tensor:
    """Return ``size`` cell means of N(0, 1) cut at its quantiles:
    its discretization with exact first moments.
    """
    cuts = torch.special.ndtri(torch.linspace(0, 1, size + 1, dtype=torch.float64))
    density = torch.exp(-cuts.square() / 2) / (2 * torch.pi) ** 0.5
    return (size * (density[:-1] - density[1:])).view(-1, 1)


@pytest.mark.parametrize("num", NORMAL)
@pytest.mark.parametrize("size", [2000, 50000])
def test_normal_distribution_has_the_closed_form_quantizer(num, size):
    """Equal masses would be 1/K; the optimal ones are not."""
    points, masses, distortion = NORMAL[num]
    codebook = KMeans(num, search="exchange").fit(normal_quantiles(size), generator=generator())
    order = codebook.centroids.flatten().argsort()
    found, weights = codebook.centroids.flatten()[order].double(), codebook.weights[order]
    tolerance = 1e-3 if size == 50000 else 1e-2  # 2000 atoms of mass 1/2000 cannot be cut finer
    assert torch.allclose(
        found[num // 2 :], torch.tensor(points, dtype=torch.float64), atol=tolerance
    )
    assert torch.allclose(
        weights[num // 2 :], torch.tensor(masses, dtype=torch.float64), atol=tolerance
    )
    assert codebook.distortion == pytest.approx(distortion, abs=1e-3)


def test_barycenter_of_the_normal_distribution_is_its_quantile_means():
    """K = 5 equal atoms: the means of the quintiles, W2² = 1 - mean x² (Quattrocchi 2024)."""
    codebook = Barycenter(5).fit(normal_quantiles(1000), generator())
    found = codebook.centroids.flatten().sort().values
    expected = torch.tensor([-1.39980960204, -0.531903065445, 0, 0.531903065445, 1.39980960204])
    assert torch.allclose(found, expected, atol=1e-3)
    assert w2_squared(normal_quantiles(1000), codebook.centroids, torch.ones(5)) == pytest.approx(
        0.10304488, abs=1e-3
    )
    assert torch.equal(codebook.weights, torch.full((5,), 0.2, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(3))
def test_small_problems_are_solved_exactly(seed):
    """Against all partitions of 9 points into 3 cells."""
    points = np.random.default_rng(seed).normal(size=(9, 4))
    best, balanced = np.inf, np.inf
    for labels in product(range(3), repeat=9):
        labels = np.array(labels)
        sizes = np.bincount(labels, minlength=3)
        if sizes.min() > 0:
            within = (
                sum(
                    ((points[labels == k] - points[labels == k].mean(0)) ** 2).sum()
                    for k in range(3)
                )
                / 9
            )
            best = min(best, within)
            balanced = min(balanced, within) if (sizes == 3).all() else balanced
    tensor = torch.from_numpy(points)
    assert KMeans(3, search="exchange").fit(tensor, generator()).distortion == pytest.approx(
        best, rel=1e-5
    )
    found = Barycenter(3, num_restarts=20).fit(tensor, generator())
    assert w2_squared(tensor, found.centroids, torch.ones(3)) == pytest.approx(balanced, rel=1e-5)


def test_pure_noise_has_the_same_distortion_for_every_partition():
    """n orthonormal points in K cells: within-cell squares n - K, whatever the cells."""
    codebook = KMeans(5, search="exchange").fit(torch.eye(12), generator())
    assert codebook.distortion == pytest.approx(7 / 12, rel=1e-5) and codebook.counts.min() > 0


# --- k-means ----------------------------------------------------------------------------------


@pytest.mark.parametrize("quantizer", CONVERGED[:3], ids=named)
def test_kmeans_is_stationary_and_no_worse_than_every_other_quantizer(quantizer, latents):
    codebook = quantizer.fit(latents, generator=generator())
    for k in range(10):
        members = latents[codebook.assignments == k]
        assert torch.allclose(members.mean(0), codebook.centroids[k], atol=1e-3)
    for other in (
        D4M(10),
        RandomSubset(10),
        Nearest(10),
        GaussianMixture(10, 8),
        BisectingKMeans(10),
    ):
        assert codebook.distortion <= other.fit(latents, generator=generator()).distortion


@pytest.mark.parametrize("num", [5, 20, 40])
def test_kmeans_beats_ten_starts_of_scikit_learn_where_dimensions_exceed_points(num, wide):
    codebook = KMeans(num, search="exchange").fit(wide, generator())
    reference = Reference(num, n_init=10, random_state=0).fit(wide.numpy()).inertia_ / len(wide)
    assert codebook.distortion <= reference * 1.0005
    assert num < 20 or codebook.distortion < 0.99 * reference


def test_exchange_leaves_no_single_move_that_helps(wide):
    """Hartigan's condition, in double precision, from its definition."""
    codebook = KMeans(20, search="exchange").fit(wide, generator())
    points, labels = wide.double().numpy(), codebook.assignments.numpy()
    sizes = np.bincount(labels, minlength=20)
    distances = squared_distances(wide, codebook.centroids).numpy()
    own = distances[np.arange(len(points)), labels]
    stay = np.where(sizes[labels] > 1, own * sizes[labels] / np.maximum(sizes[labels] - 1, 1), 0)
    go = distances * sizes / (sizes + 1)
    go[np.arange(len(points)), labels] = np.inf
    assert (go.min(1) >= stay * (1 - 1e-4)).all()
    lloyd = KMeans(20, search="lloyd").fit(wide, generator())
    assert codebook.distortion < lloyd.distortion


def test_large_classes_are_quantized_without_a_gram_matrix_and_as_well():
    rng = np.random.default_rng(1)
    points = torch.from_numpy(
        rng.normal(size=(6000, 12)) * np.arange(1, 13) + 9 * rng.integers(0, 2, (6000, 12))
    ).float()
    reference = Reference(40, n_init=3, random_state=0).fit(points.numpy()).inertia_ / len(points)
    for search in ("lloyd", "exchange"):
        cloud = PointCloud(points)
        codebook = KMeans(40, search=search).fit(cloud, generator())
        assert "gram" not in cloud.__dict__
        assert codebook.distortion <= reference * 1.01 and codebook.counts.min() > 0


def test_a_shared_cloud_gives_what_separate_fits_give(wide):
    cloud = PointCloud(wide)
    for num in (3, 12, 30):
        shared = KMeans(num).fit(cloud, generator(num))
        alone = KMeans(num).fit(wide, generator(num))
        assert torch.equal(shared.centroids, alone.centroids)


@pytest.mark.parametrize("start", ["ward", "greedy_kmeans++", "kmeans++", "random"])
def test_every_start_converges_to_about_the_same(start, latents):
    found = KMeans(10, start=start).fit(latents, generator()).distortion
    assert found == pytest.approx(KMeans(10).fit(latents, generator()).distortion, rel=0.02)


@pytest.mark.gpu
def test_gpu_and_cpu_agree(wide):
    for num in (5, 20):
        cpu, gpu = KMeans(num).fit(wide, generator()), KMeans(num).fit(wide.cuda(), generator())
        assert gpu.distortion == pytest.approx(cpu.distortion, rel=1e-3)


def test_held_out_distortion_is_that_of_latents_left_out(latents):
    codebook = KMeans(10).fit(latents, generator(), num_folds=5)
    assert codebook.distortion < codebook.held_out_distortion < codebook.variance
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(60, 2000))).float()
    found = KMeans(20).fit(noise, generator(), num_folds=5)
    assert found.distortion < 0.75 * found.variance and found.held_out_distortion > found.variance
    # 48 latents per fold.
    assert KMeans(50).fit(noise, generator(), num_folds=5).held_out_distortion is None
    assert KMeans(10).fit(latents, generator()).held_out_distortion is None


# --- the others -------------------------------------------------------------------------------


def released_d4m(
    latents: torch.Tensor, num: int, km_expand: int, seed: int, flush: bool
) -> np.ndarray:
    """Return the centroids of the released procedure, written out:
    batches of the shuffled class, seed 0.
    """
    shuffled = latents[torch.randperm(len(latents), generator=generator(seed))].flatten(1).numpy()
    engine = MiniBatchKMeans(num, random_state=0, batch_size=num * km_expand, n_init="auto")
    batch = num * km_expand
    for i in range(len(shuffled) // batch):
        engine.partial_fit(shuffled[batch * i : batch * (i + 1)])
    if flush and len(shuffled) % batch:
        engine.partial_fit(shuffled[batch * (len(shuffled) // batch) :])
    return engine.cluster_centers_


def test_d4m_is_one_pass_of_partial_fit(latents):
    for flush, quantizer in (
        (False, D4M(10, 2)),
        (True, D4M(10, 2, "flush")),
        (True, D4M(10, 2, is_last_class=True)),
    ):
        found = quantizer.fit(latents, generator=generator(1))
        assert np.allclose(
            found.centroids.flatten(1).numpy(), released_d4m(latents, 10, 2, 1, flush), atol=1e-4
        )
        # Its masses, unlike its centres, see every latent.
        assert found.counts.sum() == len(latents)


def test_d4m_flushes_the_class_of_the_last_image_only():
    labels = np.repeat([0, 1, 2], [1, 1, 8])
    flushed = [
        [D4M(2).for_class(c, labels, generator(seed)).is_last_class for c in range(3)]
        for seed in range(40)
    ]
    assert all(sum(classes) == 1 for classes in flushed)
    assert 24 <= sum(classes[2] for classes in flushed) <= 39  # in proportion to its images


def test_d4m_fails_on_a_class_smaller_than_a_batch_with_a_remedy_and_repaired_does_not(latents):
    with pytest.raises(ConfigError, match="km_expand.*\n.*leftover=flush"):
        D4M(10, km_expand=10).fit(latents[:99], generator=generator())
    assert D4M(10, km_expand=10, leftover="flush").fit(latents[:99], generator()).counts.sum() == 99


def test_clvq_of_batch_one_is_the_recursion_of_the_paper(latents):
    """MacQueen's property: with steps 1/v and one pass, a centroid is the mean of what it won,
    wherever it started.
    """
    codebook = CLVQ(1, batch_size=1, num_passes=1).fit(latents, generator())
    assert torch.allclose(codebook.centroids[0], latents.mean(0), atol=1e-4)
    slow = CLVQ(1, batch_size=1, num_passes=1, step_exponent=0.6).fit(latents, generator())
    assert not torch.allclose(slow.centroids[0], latents.mean(0), atol=1e-2)


def test_clvq_reads_a_stream_in_pieces_and_sees_every_latent(latents):
    reads = []

    def pieces():
        reads.append(0)
        for piece in latents.split(23):
            reads[-1] += len(piece)
            yield piece

    streamed = CLVQ(10, num_passes=5).fit_stream(pieces, generator())
    assert sum(read == len(latents) for read in reads) == 5 + 2  # the start, the passes, the masses
    assert torch.equal(
        streamed.assignments, squared_distances(latents, streamed.centroids).argmin(1)
    )
    again = codebook_from_centroids(latents, streamed.centroids)
    assert streamed.distortion == pytest.approx(again.distortion, rel=1e-5)
    assert streamed.variance == pytest.approx(again.variance, rel=1e-4)
    assert torch.equal(streamed.nearest, again.nearest) and torch.allclose(
        streamed.weights, again.weights
    )
    assert streamed.distortion < 1.1 * KMeans(10).fit(latents, generator()).distortion
    few = CLVQ(10, on_small_class="duplicate").fit_stream(lambda: latents[:4].split(3), generator())
    assert few.distortion == pytest.approx(0, abs=1e-6) and (few.counts > 0).sum() == 4


def test_barycenter_has_the_lowest_w2_with_equal_masses(latents, wide):
    import ot

    for data, num in ((latents, 10), (latents, 7), (wide, 20)):  # 7 does not divide 183
        flat, mass = data.flatten(1).double().numpy(), np.full(len(data), 1 / len(data))
        atoms = ot.lp.free_support_barycenter([flat], [mass], flat[:num].copy())
        ours = Barycenter(num, num_restarts=3).fit(data, generator()).centroids
        uniform = torch.ones(num)
        assert w2_squared(data, ours, uniform) <= 1.002 * w2_squared(
            data, torch.from_numpy(atoms).view_as(ours), uniform
        )
        assert w2_squared(data, ours, uniform) < w2_squared(
            data, KMeans(num).fit(data, generator()).centroids, uniform
        )


def test_barycenter_of_a_large_class_starts_from_a_sample():
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(3000, 6))).float()
    cloud = PointCloud(points)
    ours = Barycenter(10).fit(cloud, generator()).centroids
    assert "gram" not in cloud.__dict__
    assert w2_squared(points, ours, torch.ones(10)) < w2_squared(
        points, KMeans(10).fit(points, generator()).centroids, torch.ones(10)
    )


@pytest.mark.parametrize("quantizer", SELECTIONS, ids=named)
def test_selections_are_real_and_distinct(quantizer, latents):
    codebook = type(quantizer)(50).fit(latents, generator=generator())
    assert torch.allclose(latents[codebook.nearest], codebook.centroids, atol=1e-5)
    assert len(set(codebook.nearest.tolist())) == 50


def test_selections_do_what_they_are_named_after(latents):
    flat = latents.flatten(1)
    herded = Herding(20).fit(latents, generator()).centroids.flatten(1)
    random = RandomSubset(20).fit(latents, generator()).centroids.flatten(1)
    assert (herded.mean(0) - flat.mean(0)).norm() < 0.5 * (random.mean(0) - flat.mean(0)).norm()
    assert torch.allclose(Herding(5).fit(latents, generator()).centroids.flatten(1), herded[:5])

    def radius(points: torch.Tensor) -> float:
        return torch.cdist(flat, points).min(1).values.max().item()

    assert radius(KCenter(20).fit(latents, generator()).centroids.flatten(1)) < radius(random)
    medoids = KMedoids(10, num_restarts=3).fit(latents, generator())
    assert medoids.distortion <= Nearest(10).fit(latents, generator()).distortion


# --- spaces, budgets, measures ----------------------------------------------------------------


def test_quantizing_in_another_space_keeps_its_cells_and_takes_member_means(latents):
    pca = PCA(5)
    found = fit_in_space(
        KMeans(10), latents, lambda rows: pca(latents[rows]), generator(), num_folds=4
    )
    inside = KMeans(10).fit(pca(latents), generator())
    assert torch.equal(found.assignments, inside.assignments) and torch.equal(
        found.weights, inside.weights
    )
    for k in range(10):
        assert torch.allclose(
            found.centroids[k], latents[found.assignments == k].mean(0), atol=1e-3
        )
    own = (latents - found.centroids[found.assignments]).square().sum((1, 2, 3)).mean().item()
    assert found.distortion == pytest.approx(own, rel=1e-5)
    assert (
        KMeans(10).fit(latents, generator()).distortion
        < found.distortion
        < found.held_out_distortion
    )
    real = fit_in_space(
        KMeans(10), latents, lambda rows: pca(latents[rows]), generator(), representative="nearest"
    )
    assert torch.allclose(latents[real.nearest], real.centroids, atol=1e-5)


@pytest.mark.parametrize("quantizer", SELECTIONS, ids=named)
def test_what_is_selected_in_another_space_stands_for_itself(latents, quantizer):
    """Herding by features once gave the images nearest to the means of its cells,
    which is another method.
    """
    pca = PCA(5)
    found = fit_in_space(
        quantizer, latents, lambda rows: pca(latents[rows]), generator(), representative="mean"
    )
    inside = quantizer.fit(pca(latents), generator())
    assert torch.equal(found.nearest, inside.nearest)
    assert torch.allclose(found.centroids, latents[inside.nearest], atol=1e-5)


def test_a_budget_goes_where_it_lowers_the_error_most():
    gains = [np.array([9.0, 4, 1]), np.array([8.0, 7, 6, 5]), np.array([0.5])]
    assert allocate(gains, 3).tolist() == [1, 1, 1]
    assert allocate(gains, 7).tolist() == [2, 4, 1] and allocate(gains, 11).tolist() == [4, 5, 2]
    for budget in (2, 12):
        with pytest.raises(ConfigError, match="budget"):
            allocate(gains, budget)


def test_gains_are_the_errors_that_points_remove(latents):
    """They add up to the whole squared error,
    and a wide class gets more points than a narrow one.
    """
    gains = class_gains(latents, generator())
    assert gains.sum() == pytest.approx(len(latents) * PointCloud(latents).variance, rel=1e-4)
    assert (np.diff(gains) <= 0).all()
    wide, narrow = allocate([gains, class_gains(latents * 0.3, generator())], 20)
    assert wide > 15 > narrow >= 1


def test_measures_by_hand():
    assert effective_size(torch.ones(10)) == pytest.approx(10)
    assert effective_size(torch.tensor([1.0, 0, 0])) == pytest.approx(1)
    assert dispersion(torch.ones(7)) == 0 and dispersion(torch.tensor([1.0, 3.0])) == pytest.approx(
        0.5
    )
    fitted = rate([1, 10, 100], [16.0, 1.6, 0.16])  # W2² ∝ 1/K, W2 ∝ K^(-1/2)
    assert fitted.slope == pytest.approx(-0.5) and fitted.dimension == pytest.approx(2)
    assert rate([5], [1.0]).slope is None and rate([1, 2], [1.0, 0.0]).dimension is None
    assert rate([1, 2], [1.0, 2.0]).dimension is None


def test_rate_of_a_cube_is_its_dimension():
    points = torch.from_numpy(np.random.default_rng(0).random((4000, 2))).float()
    cloud, ks = PointCloud(points), (8, 16, 32, 64)
    fitted = rate(ks, [KMeans(k, 3).fit(cloud, generator()).distortion for k in ks])
    assert fitted.dimension == pytest.approx(2, rel=0.1)


def test_codebooks_survive_a_round_trip(tmp_path, latents):
    codebook = codebook_from_centroids(latents, latents[:3])
    rows = ClassCodebooks.rows(codebook, 5, np.arange(len(latents)) + 1000)
    both = ClassCodebooks.concatenate([rows, rows])
    both.save(tmp_path / "c.safetensors", {"ipc": 3})
    read = ClassCodebooks.load(tmp_path / "c.safetensors")
    assert torch.allclose(read.latents[3:], latents[:3])
    assert read.labels.tolist() == [5] * 6 and read.index.tolist() == [0, 1, 2] * 2
    assert read.sources.tolist() == [1000, 1001, 1002] * 2


def test_a_notebook_gives_numpy_arrays_and_reads_three_lines():
    points = np.random.default_rng(0).normal(size=(60, 2, 3))
    weights = np.arange(60.0)
    book = KMeans(4).fit(points, sample_weight=weights)
    same = KMeans(4).fit(
        torch.from_numpy(points), torch.Generator().manual_seed(0), torch.from_numpy(weights)
    )
    assert torch.equal(book.centroids, same.centroids) and torch.equal(book.weights, same.weights)
    first, masses, fit = repr(book).splitlines()
    assert "4 points (2, 3) for 60 latents" in first
    assert f"{book.weights.max():.3g}" in masses
    assert f"{book.distortion:.4g}, {book.distortion / book.variance:.0%}" in fit
    (*_, fit) = repr(KMeans(4).fit(points, num_folds=2)).splitlines()
    assert "held out" in fit
