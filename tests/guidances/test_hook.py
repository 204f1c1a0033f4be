"""The hook: what guidances are told, and what becomes of what they return."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from ddoq.errors import ConfigError
from ddoq.generators.sampling import split_output, to_output
from ddoq.guidances import MGD3, Finished, Guidance, Shift, Step
from ddoq.help import FOLDER
from ddoq.utils.schedulers import SCALING, SCHEDULERS
from support.steering import (
    SHAPE,
    guided_reverse,
    make_step,
    random_tensors,
    some_cells,
    some_points,
    tiny_dit,
)
from support.tiny_models import save_dit


@pytest.fixture(scope="module")
def dit_folder(tmp_path_factory):
    return save_dit(tmp_path_factory.mktemp("dit"), num_classes=10)


@dataclass(kw_only=True)
class Adds(Guidance):
    """Adds a constant to one quantity, and remembers the steps."""

    part: str = "mean"
    amount: float = 0.0

    def __post_init__(self) -> None:
        self.steps: list[Step] = []

    def shift(self, step: Step) -> Shift:
        self.steps.append(step)
        return Shift(**{self.part: self.amount * torch.ones_like(step.sample)})


PARTS = ("conditional", "noise", "clean", "mean")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_shift_of_nothing_gives_the_unguided_bytes_and_one_of_something_does_not(
    dit_folder, part, prediction
):
    def sample(*guidances: Guidance) -> torch.Tensor:
        generator = tiny_dit(dit_folder, *guidances)
        generator.schedule.register_to_config(prediction_type=prediction)
        return generator.sample(some_points())

    unguided = sample()
    assert torch.equal(unguided, sample(Adds(part=part)))
    assert not torch.allclose(unguided, sample(Adds(part=part, amount=0.1)), atol=1e-3)


def test_shifts_of_several_guidances_add_up(dit_folder):
    def sample(*amounts: float) -> torch.Tensor:
        guidances = [Adds(part="noise", amount=amount) for amount in amounts]
        return tiny_dit(dit_folder, *guidances).sample(some_points())

    assert torch.allclose(sample(0.25, 0.5), sample(0.75), atol=1e-5)


def test_the_state_is_what_the_schedulers_of_diffusers_say(dit_folder):
    guidance = Adds()
    generator = tiny_dit(dit_folder, guidance, num_steps=50)
    generator.sample(some_points())
    assert [step.number for step in guidance.steps] == list(range(49, -1, -1))
    ddpm = DDPMScheduler(clip_sample=False, variance_type="fixed_small")
    ddpm.set_timesteps(50)
    assert [step.time for step in guidance.steps] == ddpm.timesteps.tolist()
    for step in guidance.steps:
        expected = ddpm.step(step.noise, step.time, step.sample)
        clean = expected.pred_original_sample
        assert torch.allclose(step.clean, clean, rtol=1e-3, atol=1e-3 * clean.abs().max())
        if step.time:
            variance = float(ddpm._get_variance(step.time))
            assert step.sigma**2 == pytest.approx(variance, rel=1e-4)
        guided = step.unconditional + 2.0 * (step.conditional - step.unconditional)
        assert torch.allclose(step.noise, guided, atol=1e-5)


@pytest.mark.parametrize("time", [900, 500, 20])
def test_the_mean_is_that_of_ddpm(time):
    step = make_step(time=time)
    scheduler = DDPMScheduler(clip_sample=False, variance_type="fixed_small")
    scheduler.set_timesteps(50)
    scheduler._get_variance = lambda *_, **__: torch.tensor(0.0)
    expected = scheduler.step(step.noise, time, step.sample).prev_sample
    assert torch.allclose(step.mean, expected, atol=1e-4)


def test_a_shifted_output_stands_for_a_shifted_noise():
    sample, output, shift = random_tensors(3, 2, *SHAPE)
    for prediction in ("epsilon", "v_prediction", "sample"):
        scheduler = DDIMScheduler(prediction_type=prediction)
        clean, noise = split_output(output, sample, 0.3, scheduler)
        moved = output + to_output(shift, 0.3, scheduler)
        clean_after, noise_after = split_output(moved, sample, 0.3, scheduler)
        assert torch.allclose(noise_after, noise + shift, atol=1e-5)
        assert torch.allclose(clean_after, clean - (0.7 / 0.3) ** 0.5 * shift, atol=1e-5)


def test_a_guidance_sees_no_inference_tensors_and_others_can_be_differentiated(dit_folder):
    class Differentiates(Adds):
        uses_gradient = True

        def shift(self, step: Step) -> Shift:
            assert not any(
                value.is_inference() for value in vars(step).values() if torch.is_tensor(value)
            )
            gradient = step.gradient(lambda clean: (clean * step.points).flatten(1).sum(1))
            assert torch.allclose(gradient, step.points / step.alpha**0.5)
            return super().shift(step)

    with torch.inference_mode():
        points = some_points()
        assert tiny_dit(dit_folder, Differentiates()).sample(points).isfinite().all()


def test_an_image_finds_those_before_it_but_not_itself():
    finished, latents = Finished(), random_tensors(3, 2, *SHAPE)
    labels = torch.tensor([4, 7])
    assert finished.of(labels, [1, 2], latents[0]).shape == (2, 0, *SHAPE)
    finished.add(labels, [1, 2], latents[0])
    assert torch.equal(finished.of(labels, [3, 4], latents[0])[:, 0], latents[0])
    finished.add(labels, [3, 4], latents[1])
    finished.add(labels, [3, 4], latents[2])  # made again
    assert torch.equal(
        finished.of(labels, [5, 6], latents[0]), torch.stack([latents[0], latents[2]], 1)
    )
    assert finished.of(labels, [3, 4], latents[0]).shape[1] == 1


def test_what_is_drawn_belongs_to_the_image():
    step = make_step(3)
    drawn = [torch.rand(2, generator=g) for g in step.generators("a", step.number)]
    again = [torch.rand(2, generator=g) for g in step.generators("a", step.number)]
    other = [torch.rand(2, generator=g) for g in step.generators("a", step.number - 1)]
    assert torch.equal(torch.stack(drawn), torch.stack(again))
    assert not torch.equal(torch.stack(drawn), torch.stack(other))
    assert step.once("x", lambda: 1) == step.once("x", lambda: 2) == 1


def test_the_schedulers_that_are_refused_are_those_that_scale(dit_folder):
    for name in SCHEDULERS:
        if name in SCALING:
            with pytest.raises(ConfigError, match=f"{name} scales its samples"):
                tiny_dit(dit_folder, Adds(), scheduler=name)
        else:
            tiny_dit(dit_folder, Adds(), scheduler=name)


# --- where it leads ---------------------------------------------------------------------------


def gaussian(scheduler, std: float = 0.5):
    """Return the exact model of latents that are normal with a standard deviation."""

    def denoise(sample: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        alpha = scheduler.alphas_cumprod[int(time)]
        return (1 - alpha).sqrt() * sample / (alpha * std**2 + 1 - alpha)

    return denoise


def test_the_guidance_in_the_documents_steers():
    text = (FOLDER / "guidances.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    module = ModuleType("mine")
    sys.modules["mine"] = module  # where dataclasses look for their names
    exec(code, vars(module))
    scheduler, cells = DDIMScheduler(clip_sample=False), some_cells()[:4]
    noise, points = random_tensors(2, 4, *SHAPE)
    heaviest = torch.stack([own.points[-1] for own in cells])

    def distance(scale: float) -> float:
        mine = [module.Mine(scale=scale)]
        end = guided_reverse(gaussian(scheduler), scheduler, noise, points, mine, cells)
        return (end - heaviest).square().mean().item()

    assert distance(0.1) < distance(0.0)


def test_mode_guidance_moves_samples_towards_the_centroid_until_it_stops():
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    modes, noise = random_tensors(2, 4, *SHAPE)

    def distance(scale: float, stop: float = 0.5) -> float:
        guidance = MGD3(scale=scale, stop=stop)
        end = guided_reverse(gaussian(scheduler), scheduler, noise, modes, [guidance])
        return (end - modes).square().mean().item()

    assert distance(0.1) < distance(0.03) < distance(0.0)
    assert distance(0.1, stop=1.0) == distance(0.0)  # stopped before it began
    assert distance(0.1) < distance(0.1, stop=0.9) < distance(0.0)


def test_mode_guidance_is_the_published_step():
    step = make_step(time=600)
    shift = MGD3(scale=0.1).shift(step).mean
    variance = DDPMScheduler(variance_type="fixed_small")
    variance.set_timesteps(50)
    sigma = variance._get_variance(600).sqrt()
    assert torch.allclose(shift, 0.1 * sigma * (step.points - step.clean), atol=1e-4)


def test_mode_guidance_is_the_generators_own_option(dit_folder):
    as_option = tiny_dit(dit_folder, mode_guidance=0.2, mode_stop=0.3).sample(some_points())
    as_guidance = tiny_dit(dit_folder, MGD3(scale=0.2, stop=0.3)).sample(some_points())
    assert torch.equal(as_option, as_guidance)
    assert not torch.equal(as_option, tiny_dit(dit_folder).sample(some_points()))
