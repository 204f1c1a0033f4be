"""Views are what torchvision and naive loops make of the same draws;
draws have the distributions of their sources.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as vision

from ddoq.errors import ConfigError
from ddoq.evaluation.augment import Augmentation

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
DSA = "color_crop_cutout_flip_scale_rotate"
EVERYTHING = Augmentation(
    patch_shuffle=2,
    crop_scale=(0.3, 1.0),
    shift=2,
    flip=True,
    color_jitter=0.4,
    lighting=0.1,
    dsa=DSA,
    cutmix=1.0,
)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(num: int, channels: int = 3, size: int = 8) -> Tensor:
    return torch.rand(num, channels, size, size, generator=random(99))


def views(images: Tensor, draws: dict[str, Tensor]) -> Tensor:
    channels = images.shape[1]
    return Augmentation().views(images, draws, MEAN[:channels], STD[:channels])


def assert_same_mean(found: np.ndarray, expected: np.ndarray) -> None:
    """Means of two samples differ by less than four standard errors."""
    error = math.sqrt(found.var() / len(found) + expected.var() / len(expected))
    assert abs(found.mean() - expected.mean()) < 4 * error


# --- where pixels come from -------------------------------------------------------------------


def test_augmentation_shifts_and_flips_each_image_by_its_own_draw():
    images = torch.zeros(3, 1, 5, 5)
    images[:, :, 2, 1] = 1
    draws = {
        "shift": torch.tensor([[1, 0], [0, -1], [0, 0]]),
        "flip": torch.tensor([False, False, True]),
    }
    found = [tuple(torch.nonzero(image[0])[0].tolist()) for image in views(images, draws)]
    # a shift moves the window, so the content moves the other way
    assert found == [(1, 1), (2, 2), (2, 3)]


def test_augmentation_draws_cover_their_range_evenly():
    draws = Augmentation(shift=1, flip=True).draw(9000, 5, random())
    counts = np.unique(draws["shift"].numpy(), axis=0, return_counts=True)[1]
    assert (
        len(counts) == 9 and counts.min() > 900 and abs(draws["flip"].float().mean() - 0.5) < 0.02
    )


def test_a_shift_beyond_the_image_repeats_the_border():
    images = noise(1, size=4)
    moved = views(images, {"shift": torch.tensor([[9, -9]])})
    assert torch.equal(moved, images[:, :, 3:, :1].expand_as(images))


@pytest.mark.parametrize(
    ("channels", "size", "antialias"), [(1, 9, False), (3, 28, True), (3, 32, False)]
)
def test_crop_shift_and_flip_are_torchvisions_in_this_order(channels, size, antialias):
    """Catches taps outside the crop, another pixel convention, exchanged axes,
    a flip before the shift.
    """
    images = noise(20, channels, size)
    draws = Augmentation(crop_scale=(0.08, 1.0), shift=2, flip=True).draw(20, size, random())
    whole = views(images, draws)
    crops = views(images, {"crop": draws["crop"]})
    assert draws["flip"].any() and not draws["flip"].all()
    for i, (top, left, height, width) in enumerate(draws["crop"].tolist()):
        expected = vision.resized_crop(
            images[i], top, left, height, width, [size, size], antialias=antialias
        )
        assert torch.allclose(crops[i], expected, atol=1e-5)
        down, right = draws["shift"][i].tolist()
        expected = vision.pad(expected, [2, 2], padding_mode="edge")
        expected = expected[:, 2 + down : 2 + down + size, 2 + right : 2 + right + size]
        expected = vision.horizontal_flip(expected) if draws["flip"][i] else expected
        assert torch.allclose(whole[i], expected, atol=1e-5)


#: Nearly whole images often need the fallback.
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0)])
def test_crops_are_distributed_as_torchvisions(scale):
    size, num = 20, 5000
    found = Augmentation(crop_scale=scale).draw(num, size, random())["crop"].double().numpy()
    image = torch.empty(3, size, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = [
            RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(num)
        ]
    expected = np.array(theirs, float)
    assert (
        (found[:, 2:] >= 1).all()
        and (found[:, :2] >= 0).all()
        and (found[:, :2] + found[:, 2:] <= size).all()
    )
    for measure in (
        lambda box: box[:, 2] * box[:, 3],
        lambda box: (box[:, 2] * box[:, 3]) ** 2,
        lambda box: np.log(box[:, 3] / box[:, 2]),
        lambda box: np.log(box[:, 3] / box[:, 2]) ** 2,
        lambda box: box[:, 0],
        lambda box: box[:, 1],
        lambda box: box[:, 0] ** 2,
        lambda box: box[:, 0] * box[:, 1],
        lambda box: (box[:, 2:] == size).all(1).astype(float),
        lambda box: (box[:, 0] + box[:, 2] == size).astype(float),
    ):
        assert_same_mean(measure(found), measure(expected))


def test_patch_shuffle_permutes_columns_and_rows_of_patches_evenly():
    """Catches patches torn apart, a last patch of wrong size, one order for all images,
    or for rows and columns.
    """
    size, factor, num = 8, 3, 3600
    cuts = [list(range(0, 2)), list(range(2, 4)), list(range(4, 8))]  # the last takes the remainder
    orders = [sum(order, []) for order in itertools.permutations(cuts)]
    ids = torch.arange(size * size).view(size, size)
    known = {
        tuple(ids[rows][:, columns].flatten().tolist()) for rows in orders for columns in orders
    }
    draws = Augmentation(patch_shuffle=factor).draw(num, size, random())
    shuffled = views(ids.float().expand(num, 1, -1, -1), draws).long()
    found, counts = np.unique(shuffled.flatten(1).numpy(), axis=0, return_counts=True)
    assert {tuple(arrangement) for arrangement in found.tolist()} == known and len(known) == 36
    assert stats.chisquare(counts).pvalue > 1e-4


# --- colours ----------------------------------------------------------------------------------


def naive_jitter(image: Tensor, shares: Tensor, order: tuple[int, ...]) -> Tensor:
    for kind in order:
        grey = image
        if len(image) == 3:
            grey = (0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]).expand(3, -1, -1)
        target = (torch.zeros_like(image), torch.full_like(image, grey.mean().item()), grey)[kind]
        image = image + shares[kind] * (target - image)
    return image


@pytest.mark.parametrize("channels", [1, 3])
def test_color_jitter_is_brightness_contrast_and_saturation_in_any_order(channels):
    images = noise(4, channels)
    draws = Augmentation(color_jitter=1.0).draw(4, 8, random())
    jittered = views(images, draws)
    for order, i in itertools.product(itertools.permutations(range(3)), range(4)):
        assert torch.allclose(
            jittered[i], naive_jitter(images[i], draws["jitter"][i], order), atol=1e-6
        )


@pytest.mark.parametrize(
    ("kind", "adjust"),
    enumerate([vision.adjust_brightness, vision.adjust_contrast, vision.adjust_saturation]),
)
def test_each_color_jitter_is_torchvisions_where_that_does_not_clamp(kind, adjust):
    images = 0.3 + 0.4 * noise(2)
    shares = torch.zeros(2, 3)
    shares[:, kind] = torch.tensor([0.3, -0.2])
    expected = torch.stack(
        [adjust(image, 1 - share) for image, share in zip(images, (0.3, -0.2), strict=True)]
    )
    # Its weight of red is 0.2989.
    assert torch.allclose(views(images, {"jitter": shares}), expected, atol=2e-4)


def test_color_jitter_shares_are_uniform_and_independent():
    shares = Augmentation(color_jitter=0.4).draw(20000, 8, random())["jitter"].double().numpy()
    for values in shares.T:
        assert stats.kstest(values, stats.uniform(-0.4, 0.8).cdf).pvalue > 1e-4
    assert np.allclose(
        np.cov(shares.T), np.eye(3) * 0.4**2 / 3, atol=4 * 0.4**2 / 3 * math.sqrt(2 / 20000)
    )


def test_lighting_has_the_covariance_of_its_principal_components():
    """Catches eigenvectors taken as rows, eigenvalues forgotten or rooted,
    noise per pixel or per batch.
    """
    vectors = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    num, values = 40000, np.array([0.2175, 0.0188, 0.0045])
    images = torch.zeros(num, 3, 2, 2)
    lit = views(images, Augmentation(lighting=0.5).draw(num, 2, random()))
    assert torch.equal(lit, lit[:, :, :1, :1].expand_as(lit))
    found = np.cov(lit[:, :, 0, 0].double().numpy().T)
    along, expected = np.diag(vectors.T @ found @ vectors), (0.5 * values) ** 2
    # The vectors have three digits.
    assert np.allclose(along, expected, rtol=4 * math.sqrt(2 / num) + 2e-3)
    assert np.allclose(found, vectors @ np.diag(expected) @ vectors.T, atol=1e-4)


# --- DSA --------------------------------------------------------------------------------------


def bilinear(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """Return the colour at a position in pixels; zero outside."""
    total = np.zeros(len(image))
    for i, j in itertools.product(
        (math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)
    ):
        if 0 <= i < image.shape[1] and 0 <= j < image.shape[2]:
            total += (1 - abs(y - i)) * (1 - abs(x - j)) * image[:, i, j]
    return total


def naive_warp(image: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    size = image.shape[1]
    out = np.zeros_like(image)
    for i, j in itertools.product(range(size), repeat=2):
        x, y = np.array(matrix) @ ((2 * j + 1) / size - 1, (2 * i + 1) / size - 1)
        out[:, i, j] = bilinear(image, ((y + 1) * size - 1) / 2, ((x + 1) * size - 1) / 2)
    return out


def naive_dsa(name: str, image: np.ndarray, drawn) -> np.ndarray:
    size = image.shape[1]
    if name == "color":
        image = image + drawn[0]
        image = (image - image.mean(0)) * drawn[1] + image.mean(0)
        return (image - image.mean()) * drawn[2] + image.mean()
    if name == "flip":
        return image[:, :, ::-1] if drawn else image
    if name == "scale":
        return naive_warp(image, [[drawn[0], 0], [0, drawn[1]]])
    if name == "rotate":
        return naive_warp(
            image, [[math.cos(drawn), -math.sin(drawn)], [math.sin(drawn), math.cos(drawn)]]
        )
    if name == "crop":
        padded = np.pad(image, ((0, 0), (size, size), (size, size)))
        top, left = size + drawn[0], size + drawn[1]
        return padded[:, top : top + size, left : left + size]
    out, side = image.copy(), int(size / 2 + 0.5)
    top, left = drawn[0] - side // 2, drawn[1] - side // 2
    out[:, max(0, top) : top + side, max(0, left) : left + side] = 0
    return out


@pytest.mark.parametrize("name", DSA.split("_"))
@pytest.mark.parametrize(("num", "channels", "size"), [(5, 3, 8), (1, 1, 9)])
def test_dsa_operation_is_the_naive_one_on_normalised_pixels(name, num, channels, size):
    images = noise(num, channels, size)
    augmentation = Augmentation(dsa=name)
    mean, std = MEAN[:channels], STD[:channels]
    for seed in range(4):
        draws = augmentation.draw(num, size, random(seed))
        found = augmentation.views(images, draws, mean, std)
        normal = ((images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)).double().numpy()
        for i, drawn in enumerate(draws[f"dsa_{name}"].tolist()):
            expected = (
                naive_dsa(name, normal[i], drawn) * std.view(-1, 1, 1).numpy()
                + mean.view(-1, 1, 1).numpy()
            )
            assert np.allclose(found[i].numpy(), expected, atol=1e-5)


def test_dsa_draws_one_operation_per_batch_each_equally_often():
    augmentation, generator = Augmentation(dsa=DSA), random()
    names = [name for _ in range(1200) for name in augmentation.draw(2, 8, generator)]
    assert len(names) == 1200
    counts = np.unique(names, return_counts=True)[1]
    assert len(counts) == 6 and stats.chisquare(counts).pvalue > 1e-4


def test_color_comes_to_every_image_before_the_operation_that_is_drawn():
    """Bug: IDC's color takes the place of the drawn operation, or comes after it."""
    augmentation, images = Augmentation(dsa_color=True, dsa="cutout"), noise(5, 3, 8)
    draws = augmentation.draw(5, 8, random())
    assert draws.keys() == {"dsa_color", "dsa_cutout"}
    found = augmentation.views(images, draws, MEAN, STD)
    normal = (images - MEAN.view(-1, 1, 1)) / STD.view(-1, 1, 1)
    for i, (color, box) in enumerate(zip(*(d.tolist() for d in draws.values()), strict=True)):
        expected = naive_dsa("cutout", naive_dsa("color", normal[i].double().numpy(), color), box)
        expected = expected * STD.view(-1, 1, 1).numpy() + MEAN.view(-1, 1, 1).numpy()
        assert np.allclose(found[i].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "column", "law"),
    [
        ("color", 0, stats.uniform(-0.5, 1)),
        ("color", 1, stats.uniform(0, 2)),
        ("color", 2, stats.uniform(0.5, 1)),
        ("scale", 0, stats.uniform(1 / 1.2, 1.2 - 1 / 1.2)),
        ("scale", 1, stats.uniform(1 / 1.2, 1.2 - 1 / 1.2)),
        ("rotate", 0, stats.uniform(-math.pi / 12, math.pi / 6)),
    ],
)
def test_dsa_parameters_are_uniform_over_the_authors_ranges(name, column, law):
    drawn = Augmentation(dsa=name).draw(5000, 32, random())[f"dsa_{name}"].view(5000, -1)[:, column]
    assert stats.kstest(drawn.double().numpy(), law.cdf).pvalue > 1e-4


@pytest.mark.parametrize(
    ("name", "size", "low", "high"),
    [("crop", 32, -4, 4), ("crop", 28, -4, 4), ("cutout", 32, 0, 32), ("cutout", 9, 0, 8)],
)
def test_dsa_places_cover_the_authors_ranges(name, size, low, high):
    """A cutout of even side has one place more than one of odd side;
    a crop moves by an eighth, rounded up at .5.
    """
    drawn = Augmentation(dsa=name).draw(6000, size, random())[f"dsa_{name}"].numpy()
    for axis in drawn.T:
        values, counts = np.unique(axis, return_counts=True)
        assert (
            values.tolist() == list(range(low, high + 1)) and stats.chisquare(counts).pvalue > 1e-4
        )


# --- mixing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 8])
def test_cutmix_pastes_the_partners_box_and_the_share_counts_pixels(size):
    """Catches a share taken from lambda and not from the clipped box,
    exchanged axes or partners.
    """
    augmentation, generator, num = Augmentation(cutmix=1.0), random(), 6
    ids = torch.arange(num, dtype=torch.float32).view(num, 1, 1, 1)
    images = torch.cat([ids.expand(-1, 1, size, size), noise(num, 2, size)], 1)
    for _ in range(200):
        draws = augmentation.draw(num, size, generator)
        assert sorted(draws["partner"].tolist()) == list(range(num))
        mixed = augmentation.mix(images, draws)
        top, left, bottom, right = draws["box"][0].tolist()
        assert (draws["box"] == draws["box"][0]).all()
        expected = images.clone()
        expected[:, :, top:bottom, left:right] = images[draws["partner"], :, top:bottom, left:right]
        assert torch.equal(mixed, expected)
        kept = (expected == images).all(1).flatten(1).sum(1).double() / size**2
        strangers = draws["partner"] != torch.arange(num)
        assert torch.equal(draws["share"][strangers], kept[strangers].float())
        assert (draws["share"] == draws["share"][0]).all()


def test_cutmix_boxes_are_distributed_as_in_the_sources():
    """Against the published formula with NumPy:
    side floor(S sqrt(1 - lambda)), half of it to each side, clipped.
    """
    size, num, rng = 9, 6000, np.random.default_rng(0)
    augmentation, generator = Augmentation(cutmix=1.0), random()
    drawn = [augmentation.draw(1, size, generator) for _ in range(num)]
    found = torch.cat([draws["box"] for draws in drawn]).double().numpy()
    half = np.floor(size * np.sqrt(1 - rng.beta(1, 1, num))).astype(int)[:, None] // 2
    centre = rng.integers(size, size=(num, 2))
    expected = np.clip(np.concatenate([centre - half, centre + half], 1), 0, size).astype(float)
    for measure in (
        *(lambda box, k=k: box[:, k] for k in range(4)),
        *(lambda box, k=k: box[:, k] ** 2 for k in range(4)),
        lambda box: (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]),
        lambda box: box[:, 0] * box[:, 1],
    ):
        assert_same_mean(measure(found), measure(expected))


def test_mixup_is_linear_in_the_share():
    images = noise(3)
    draws = {"partner": torch.tensor([2, 0, 1]), "share": torch.tensor([1.0, 0.25, 0.0])}
    mixed = Augmentation(mixup=1.0).mix(images, draws)
    assert torch.equal(mixed[0], images[0]) and torch.equal(mixed[2], images[1])
    assert torch.allclose(mixed[1], 0.25 * images[1] + 0.75 * images[0], atol=1e-7)


@pytest.mark.parametrize(("a", "probability"), [(1.0, 1.0), (0.2, 1.0), (1.0, 0.5)])
def test_mixup_share_is_beta_distributed(a, probability):
    """Catches, too, a share that comes from the number which decided whether to mix."""
    augmentation, generator = Augmentation(mixup=a, mix_probability=probability), random()
    shares = np.array([augmentation.draw(1, 8, generator)["share"].item() for _ in range(4000)])
    mixed = shares[shares < 1] if probability < 1 else shares
    assert stats.kstest(mixed, stats.beta(a, a).cdf).pvalue > 1e-4


@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
def test_mix_probability_is_of_the_batch(kind):
    images, generator = noise(4), random()
    never = Augmentation(**{kind: 1.0}, mix_probability=0.0)
    assert torch.equal(never.mix(images, never.draw(4, 8, generator)), images)
    often = Augmentation(**{kind: 1.0}, mix_probability=0.3)
    draws = [often.draw(4, 64, generator) for _ in range(2000)]
    assert abs(np.mean([float(drawn["share"][0]) < 1 for drawn in draws]) - 0.3) < 0.05
    assert all((drawn["share"] == drawn["share"][0]).all() for drawn in draws)


def test_what_does_not_mix_has_no_partners():
    augmentation = Augmentation(flip=True)
    images = noise(2)
    assert (
        not augmentation.mixes and Augmentation(mixup=0.2).mixes and Augmentation(cutmix=0.2).mixes
    )
    assert torch.equal(augmentation.mix(images, augmentation.draw(2, 8, random())), images)


# --- all together -----------------------------------------------------------------------------


def test_what_is_off_has_no_draws_and_changes_nothing():
    assert Augmentation().draw(4, 8, random()) == {}
    assert torch.equal(views(noise(4), {}), noise(4))
    names = {"patches", "crop", "shift", "flip", "jitter", "lighting", "partner", "share", "box"}
    draws = EVERYTHING.draw(4, 8, random())
    assert {name for name in draws if not name.startswith("dsa_")} == names and len(draws) == len(
        names
    ) + 1
    assert all(len(drawn) == 4 and drawn.device.type == "cpu" for drawn in draws.values())


def test_draws_are_a_function_of_the_generator_alone():
    """Catches a draw from the global generator, which another part of a run may have advanced."""
    state = torch.get_rng_state()
    first, second, other = (EVERYTHING.draw(16, 8, random(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )
    assert not torch.equal(first["jitter"], other["jitter"])
    mixed = [
        EVERYTHING.mix(EVERYTHING.views(noise(16), draws, MEAN, STD), draws)
        for draws in (first, second)
    ]
    assert torch.equal(*mixed)


@pytest.mark.parametrize("name", DSA.split("_"))
def test_a_view_does_not_depend_on_the_rest_of_the_batch(name):
    """Catches statistics over the batch and draws that reach the wrong image."""
    images = noise(6)
    augmentation = Augmentation(
        patch_shuffle=2,
        crop_scale=(0.3, 1.0),
        shift=2,
        flip=True,
        color_jitter=0.4,
        lighting=0.1,
        dsa=name,
    )
    draws = augmentation.draw(6, 8, random())
    whole = augmentation.views(images, draws, MEAN, STD)
    for chosen in ([4], [5, 0, 3]):
        part = augmentation.views(
            images[chosen], {key: drawn[chosen] for key, drawn in draws.items()}, MEAN, STD
        )
        assert torch.allclose(part, whole[chosen], atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_views_of_flat_images_are_finite(value):
    """Catches divisions by a spread or a share that may be zero."""
    images = torch.full((4, 3, 8, 8), value)
    augmentation = Augmentation(
        patch_shuffle=2,
        crop_scale=(0.08, 1.0),
        shift=8,
        flip=True,
        color_jitter=1.0,
        lighting=0.1,
        dsa=DSA,
        mixup=0.01,
    )
    for seed in range(20):
        draws = augmentation.draw(4, 8, random(seed))
        draws["jitter"][0] = torch.tensor([1.0, 1.0, 1.0])
        mixed = augmentation.mix(augmentation.views(images, draws, MEAN, STD), draws)
        assert mixed.shape == images.shape and mixed.isfinite().all() and mixed.abs().max() < 20


@pytest.mark.parametrize("name", DSA.split("_"))
def test_everything_stays_on_the_device_of_the_images(name):
    """The meta device refuses to be mixed with tensors that were made on the CPU."""
    for mixing in ({"cutmix": 1.0}, {"mixup": 1.0}):
        augmentation = Augmentation(
            patch_shuffle=2,
            crop_scale=(0.3, 1.0),
            shift=2,
            flip=True,
            color_jitter=0.4,
            lighting=0.1,
            dsa=name,
            **mixing,
        )
        draws = {key: drawn.to("meta") for key, drawn in augmentation.draw(4, 8, random()).items()}
        mixed = augmentation.mix(
            augmentation.views(noise(4).to("meta"), draws, MEAN.to("meta"), STD.to("meta")), draws
        )
        assert mixed.device.type == "meta" and mixed.shape == (4, 3, 8, 8)


def test_what_cannot_be_is_refused():
    with pytest.raises(
        ConfigError, match=r"protocol\.augmentation\.dsa.*'cutut'\n.*did you mean 'cutout'"
    ):
        Augmentation(dsa="color_cutut")
    with pytest.raises(ConfigError, match=r"protocol\.augmentation\.cutmix"):
        Augmentation(cutmix=1.0, mixup=0.2)
    for scale in ([1.0, 0.08], [8, 100], [0.0, 1.0], [0.5]):
        with pytest.raises(ConfigError, match=r"protocol\.augmentation\.crop_scale"):
            Augmentation(crop_scale=scale)
    lighting = Augmentation(lighting=0.1)
    with pytest.raises(ConfigError, match=r"protocol\.augmentation\.lighting"):
        lighting.views(noise(2, 1), lighting.draw(2, 8, random()), MEAN[:1], STD[:1])
