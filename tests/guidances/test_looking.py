"""Guidances that look at decoded images: UAG, IGD and OT-guided."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import ot
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ddoq.encoders import VAE
from ddoq.engine.memory import decoding_bytes
from ddoq.generators import Points
from ddoq.guidances import IGD, UAG, Finished, OTGuided, Step
from ddoq.guidances.influence import Surrogates
from ddoq.guidances.uag import entropy
from support.steering import SHAPE, make_step, random_tensors, some_points, tiny_dit
from support.tiny_models import save_dit, save_vae


@pytest.fixture(scope="module")
def dit_folder(tmp_path_factory):
    return save_dit(tmp_path_factory.mktemp("dit"), num_classes=10)


def classifier(seed: int = 0) -> nn.Module:
    """Return a smooth network, so that finite differences are gradients, float64."""
    torch.manual_seed(seed)
    layers = nn.Conv2d(SHAPE[0], 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 36, 10)
    return nn.Sequential(*layers).double()


def double_step(**changes) -> Step:
    """Return a step of two images in double precision."""
    step = make_step(2, **changes)
    values = {
        name: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in vars(step).items()
        if name in Step.__dataclass_fields__
    }
    return Step(**values)


def surrogates() -> Surrogates:
    """Return two networks and real images that are noise."""
    return Surrogates(
        [classifier(1), classifier(2)],
        lambda label: random_tensors(7, *SHAPE, seed=50 + label).double(),
    )


def slope(function: Callable[[Tensor], float], clean: Tensor, direction: Tensor) -> float:
    """Return a derivative by finite differences."""
    small = 1e-5
    return (function(clean + small * direction) - function(clean - small * direction)) / (2 * small)


def misfit(asked: Surrogates, label: int, clean: Tensor) -> float:
    """Return the misfit of one image."""
    return asked.misfit(clean[None], [label]).item()


def test_uag_goes_up_the_entropy_by_finite_differences():
    step, teacher = double_step(time=500), classifier()
    shift = UAG(teacher=teacher, scale=3.0).shift(step).noise
    direction = random_tensors(*SHAPE, seed=9).double()
    for image in range(2):

        def of_clean(clean: Tensor) -> float:
            probabilities = teacher(clean[None]).softmax(1)[0].detach().numpy()
            return float(-(probabilities * np.log(probabilities)).sum())

        expected = slope(of_clean, step.clean[image], direction) / step.alpha**0.5
        expected *= -3.0 * (1 - step.alpha) ** 0.5
        assert float((shift[image] * direction).sum()) == pytest.approx(expected, rel=1e-4)


def test_uag_makes_images_less_certain(dit_folder):
    teacher = classifier().float()

    def uncertainty(scale: float) -> float:
        latents = tiny_dit(dit_folder, UAG(teacher=teacher, scale=scale)).sample(some_points())
        return entropy(teacher(latents)).mean().item()

    assert uncertainty(0.0) < uncertainty(1.0)


def test_influence_is_one_minus_the_cosine_of_gradients_at_each_network():
    asked, image = surrogates(), random_tensors(1, *SHAPE, seed=4).double()
    total = 0.0
    for network in asked.networks:

        def gradient(images: Tensor, network=network) -> Tensor:
            network.zero_grad()
            nn.functional.cross_entropy(network(images), torch.full((len(images),), 3)).backward()
            return torch.cat([weight.grad.flatten() for weight in network.parameters()])

        real = gradient(random_tensors(7, *SHAPE, seed=53).double())
        total += 1 - float(gradient(image) @ real / gradient(image).norm() / real.norm())
    assert asked.misfit(image, [3]).item() == pytest.approx(total, rel=1e-9)


def test_igd_goes_down_the_influence_and_away_from_the_nearest_by_finite_differences():
    step, asked = double_step(num_finished=3), surrogates()
    direction = random_tensors(*SHAPE, seed=9).double()
    clean_size = step.clean[0].numel()
    pulled = IGD(surrogates=asked, scale=2.0, deviation=0.0).shift(step).mean
    pushed = IGD(surrogates=asked, scale=0.0, deviation=7.0).shift(step).mean
    for image in range(2):
        label = step.labels[image].item()
        along = slope(partial(misfit, asked, label), step.clean[image], direction)
        length = (1 - step.alpha) ** 0.5 * step.noise[image].norm() / 64
        assert pulled[image].norm().item() == pytest.approx(2.0 * length.item(), rel=1e-6)
        full = step.gradient(lambda z: asked.misfit(z, step.labels.tolist()))[image]
        assert float((full * direction).sum()) * step.alpha**0.5 == pytest.approx(along, rel=1e-3)
        assert torch.allclose(pulled[image], -2.0 * length * full / full.norm(), rtol=1e-6)

        def nearest(clean: Tensor, image: int = image) -> float:
            finished = step.memory[image].flatten(1)
            return cosine_similarity(clean.flatten()[None], finished).max().item()

        expected = (
            -7.0
            * clean_size
            / 4096
            * slope(nearest, step.clean[image], direction)
            / step.alpha**0.5
        )
        assert float((pushed[image] * direction).sum()) == pytest.approx(expected, rel=1e-4)


def test_without_finished_latents_there_is_nothing_to_keep_away_from():
    assert IGD(surrogates=surrogates(), scale=0.0).shift(double_step()).mean is None


def test_transport_to_real_latents_goes_down_the_cost_that_pot_has():
    real = {label: random_tensors(5, *SHAPE, seed=70 + label).double() for label in range(2)}
    step = double_step(num_finished=2)
    options = {"scale": 0.0, "deviation": 0.0, "batch_size": 6, "rounds": 300}
    guidance = OTGuided(surrogates=surrogates(), latents=real.__getitem__, **options)
    shift = guidance.shift(step).mean
    drawn = step.kept["real latents"]
    for image in range(2):
        rows = {tuple(row.tolist()) for row in drawn[image]}
        assert rows <= {tuple(row.flatten().tolist()) for row in real[image]}

        def cost(clean: Tensor, image: int = image) -> float:
            images = torch.cat([step.memory[image], clean[None]]).flatten(1).numpy()
            latents = drawn[image].numpy()
            distances = np.abs(images[:, None] - latents[None]).mean(2)
            equal = np.full(3, 1 / 3), np.full(6, 1 / 6)
            plan = ot.sinkhorn(*equal, distances, 0.05, stopThr=1e-12, numItermax=5000)
            return float((plan * distances).sum())

        length = (1 - step.alpha) ** 0.5 * step.noise[image].norm().item() / 64
        assert shift[image].norm().item() == pytest.approx(length, rel=1e-6)
        direction = shift[image] / shift[image].norm()
        assert slope(cost, step.clean[image], direction) < 0
        other = random_tensors(*SHAPE, seed=11).double()
        ratio = slope(cost, step.clean[image], other) / slope(cost, step.clean[image], direction)
        assert float((direction * other).sum()) == pytest.approx(ratio, rel=1e-3)


@pytest.mark.parametrize("kind", ["uag", "igd", "ot"])
def test_without_strength_they_give_the_unguided_bytes(dit_folder, kind):
    asked = Surrogates(
        [classifier(1).float()], lambda label: random_tensors(7, *SHAPE, seed=50 + label)
    )
    guidance = {
        "uag": lambda: UAG(teacher=classifier().float(), scale=0.0),
        "igd": lambda: IGD(surrogates=asked, scale=0.0, deviation=0.0),
        "ot": lambda: OTGuided(
            surrogates=asked,
            latents=lambda label: random_tensors(5, *SHAPE),
            **{"scale": 0.0, "deviation": 0.0, "transport": 0.0},
        ),
    }[kind]()
    unguided = tiny_dit(dit_folder).sample(some_points())
    assert torch.equal(tiny_dit(dit_folder, guidance).sample(some_points()), unguided)


def test_images_of_a_class_keep_away_from_one_another(dit_folder):
    asked = Surrogates(
        [classifier(1).float()], lambda label: random_tensors(7, *SHAPE, seed=50 + label)
    )

    def likeness(deviation: float) -> float:
        guidance = IGD(surrogates=asked, scale=0.0, deviation=deviation)
        generator, finished = tiny_dit(dit_folder, guidance), Finished()
        first = generator.sample(some_points(), finished)
        points = some_points()
        others = Points(points.latents, points.labels, points.sources, [11, 12, 13, 14])
        second = generator.sample(others, finished)
        return cosine_similarity(first.flatten(1), second.flatten(1)).mean().item()

    assert likeness(16000.0) < likeness(0.0)


def test_the_memory_of_a_decoder_is_known_without_decoding(tmp_path):
    encoder = VAE(str(save_vae(tmp_path)))
    small, large = (decoding_bytes(encoder, (4, side, side)) for side in (8, 16))
    assert 3.5 < large / small < 5
    assert not any(parameter.is_meta for parameter in encoder.parameters())
