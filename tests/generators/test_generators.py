"""Encoders and generators, with tiny random-weight models of the real diffusers classes."""

from __future__ import annotations

import time
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMInverseScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DiTPipeline,
    StableDiffusionImg2ImgPipeline,
)

from ddoq.data.images import to_uint8, to_unit
from ddoq.data.label_space import LabelSpace
from ddoq.data.tables import open_parquet
from ddoq.encoders import TAEF2, VAE, Pixels
from ddoq.errors import ConfigError, DataError, StageError
from ddoq.generators import Decode, DiT, Points, StableDiffusion
from ddoq.generators.sampling import invert, reverse, times_from
from ddoq.utils.schedulers import SCHEDULERS
from support.tiny_models import save_dit, save_stable_diffusion

TEN = LabelSpace([str(c) for c in range(10)], [str(c) for c in range(10)], [None] * 10, [None] * 10)
IMAGENET = LabelSpace.from_classes(["n01440764", "n02102040", "n03888257"])


@pytest.fixture(scope="module")
def dit_folder(tmp_path_factory):
    return save_dit(tmp_path_factory.mktemp("dit"), num_classes=10)


@pytest.fixture(scope="module")
def imagenet_dit_folder(tmp_path_factory):
    return save_dit(tmp_path_factory.mktemp("imagenet_dit"))


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory):
    return save_stable_diffusion(tmp_path_factory.mktemp("sd"))


def points(num: int = 7, num_classes: int = 10) -> Points:
    random = torch.Generator().manual_seed(1)
    latents = torch.randn(num, 4, 8, 8, generator=random)
    return Points(
        latents, torch.arange(num) % num_classes, torch.zeros(num).long(), list(range(num))
    )


def dit(folder, **changes) -> DiT:
    options = {
        "encoder": Pixels(),
        "label_space": TEN,
        "strength": 0.6,
        "guidance_scale": 2.0,
        "num_steps": 5,
    }
    return DiT(path=str(folder), **options | changes)


def stable_diffusion(folder, **changes) -> StableDiffusion:
    options = {"label_space": IMAGENET, "strength": 0.6, "guidance_scale": 7.5, "num_steps": 5}
    return StableDiffusion(path=str(folder), **{"encoder": VAE(str(folder))} | options | changes)


def test_output_does_not_depend_on_the_batch(dit_folder):
    generator, whole = dit(dit_folder), points()
    together = generator.generate(whole)
    apart = torch.cat([generator.generate(whole.part(slice(i, i + 1))) for i in range(7)])
    shuffled = generator.generate(whole.part(slice(2, 5)))
    assert together.std() > 0.1
    assert torch.allclose(together, apart, atol=1e-5) and torch.allclose(
        together[2:5], shuffled, atol=1e-5
    )


def test_noise_belongs_to_the_seed_and_class_to_the_label(dit_folder):
    generator, one = dit(dit_folder), points(1)
    base = generator.generate(one)
    assert torch.equal(base, generator.generate(one))
    assert not torch.allclose(
        base, generator.generate(Points(one.latents, one.labels, one.sources, [99])), atol=1e-3
    )
    assert not torch.allclose(
        base,
        generator.generate(Points(one.latents, one.labels + 1, one.sources, one.seeds)),
        atol=1e-4,
    )


def test_low_strength_stays_near_the_centroid_and_high_strength_forgets_it(dit_folder):
    whole = points()
    other = Points(-whole.latents, whole.labels, whole.sources, whole.seeds)

    def memory(strength: float) -> float:
        generator = dit(dit_folder, strength=strength, guidance_scale=1.0, num_steps=10)
        return (generator.generate(whole) - generator.generate(other)).abs().mean().item()

    assert memory(0.1) > 3 * memory(1.0)


def perfect(clean: torch.Tensor, scheduler):
    """Return a model that knows the clean sample, so that the reverse process has to end there."""
    calls = []

    def denoise(sample: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        calls.append(int(time))
        alpha = scheduler.alphas_cumprod[int(time)]
        return (sample - alpha.sqrt() * clean) / (1 - alpha).sqrt()

    return denoise, calls


@pytest.mark.parametrize(("strength", "calls"), [(0.01, 1), (0.5, 5), (1.0, 10)])
def test_sampling_ends_at_the_clean_sample_and_runs_the_share_of_steps(strength, calls):
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    clean, start = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    denoise, seen = perfect(clean, scheduler)
    times = times_from(scheduler, 10, strength)
    noisy = scheduler.add_noise(start, torch.randn(3, 4, 8, 8), times[:1].expand(3))
    assert (
        torch.allclose(reverse(denoise, scheduler, noisy, times), clean, atol=1e-3)
        and len(seen) == calls
    )


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_starts_in_the_middle_and_ends_at_the_clean_sample(name):
    options = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    options |= {"clip_sample": False} if name in ("DDIMScheduler", "DDPMScheduler") else {}
    options |= {} if name == "DPMSolverSinglestepScheduler" else {"timestep_spacing": "trailing"}
    scheduler = getattr(diffusers, name)(**options)
    clean = torch.randn(2, 4, 8, 8)
    denoise, seen = perfect(clean, scheduler)
    times = times_from(scheduler, 20, 0.5)
    noisy = scheduler.add_noise(clean, torch.randn_like(clean), times[:1].expand(2))
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    end = reverse(denoise, scheduler, noisy, times, generators)
    assert 400 < seen[0] < 600
    # solvers of higher order end at the smallest time, where a little noise is left;
    # PNDM's extrapolation overshoots
    assert (end - clean).abs().mean() < (0.2 if name == "PNDMScheduler" else 0.05)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_noise_of_every_scheduler_belongs_to_the_image(dit_folder, name):
    generator, whole = dit(dit_folder, scheduler=name, num_steps=6), points(3)
    apart = torch.cat([generator.generate(whole.part(slice(i, i + 1))) for i in range(3)])
    assert torch.allclose(generator.generate(whole), apart, atol=1e-4)


def test_stable_diffusion_is_the_stock_pipeline(sd_folder):
    generator = stable_diffusion(sd_folder, negative_prompt="cartoon", num_steps=10)
    some = points(3, 3)
    pipeline = StableDiffusionImg2ImgPipeline(
        vae=generator.encoder.vae,
        text_encoder=generator.text_encoder,
        tokenizer=generator.tokenizer,
        unet=generator.network,
        scheduler=generator.schedule,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        prompt=[
            "tench, Tinca tinca",
            "English springer, English springer spaniel",
            "parachute, chute",
        ],
        negative_prompt=["cartoon"] * 3,
        image=some.latents,
        strength=0.6,
        guidance_scale=7.5,
        num_inference_steps=10,
        generator=[torch.Generator().manual_seed(seed) for seed in some.seeds],
        output_type="pt",
    ).images
    assert expected.std() > 0.05
    assert torch.allclose(generator.generate(some) / 2 + 0.5, expected, atol=1e-5)


def test_dit_from_pure_noise_is_the_stock_pipeline(imagenet_dit_folder, sd_folder):
    generator = dit(
        imagenet_dit_folder,
        encoder=VAE(str(sd_folder)),
        label_space=IMAGENET,
        classes="imagenet",
        start="noise",
        strength=1.0,
    )
    pipeline = DiTPipeline(
        transformer=generator.network, scheduler=generator.schedule, vae=generator.encoder.vae
    )
    pipeline.set_progress_bar_config(disable=True)
    some = points(3, 3)
    expected = pipeline(
        class_labels=[0, 217, 701],
        guidance_scale=2.0,
        num_inference_steps=5,
        generator=[torch.Generator().manual_seed(seed) for seed in some.seeds],
        output_type="pt",
    ).images
    assert torch.allclose(generator.generate(some) / 2 + 0.5, expected, atol=1e-5)


def test_prompts_come_from_the_class_and_matter(sd_folder):
    one = points(1, 3)
    named = stable_diffusion(sd_folder, prompt="a photo of a {name}")
    synonyms = stable_diffusion(sd_folder)
    assert (
        named.prompt_of(0) == "a photo of a tench" and synonyms.prompt_of(0) == "tench, Tinca tinca"
    )
    assert not torch.allclose(named.generate(one), synonyms.generate(one), atol=1e-4)
    negative = stable_diffusion(sd_folder, negative_prompt="cartoon, anime, painting")
    assert not torch.allclose(negative.generate(one), synonyms.generate(one), atol=1e-4)


def test_learned_variance_reaches_only_a_scheduler_that_wants_it(imagenet_dit_folder, tmp_path):
    generator = dit(imagenet_dit_folder, label_space=IMAGENET, classes="imagenet")
    denoise = generator.denoiser(torch.arange(3), 2.0)
    assert denoise(torch.randn(3, 4, 8, 8), torch.tensor(500)).shape[1] == 4
    learned = dit(
        imagenet_dit_folder, label_space=IMAGENET, classes="imagenet", scheduler="DDPMScheduler"
    )
    learned.schedule = DDPMScheduler(variance_type="learned_range", clip_sample=False)
    sample = torch.randn(3, 4, 8, 8)
    output = learned.denoiser(torch.arange(3), 2.0)(sample, torch.tensor(500))
    assert output.shape[1] == 8
    conditional = learned.denoiser(torch.arange(3), 1.0)(sample, torch.tensor(500))
    # The variance is not extrapolated.
    assert torch.allclose(output[:, 4:], conditional[:, 4:], atol=1e-5)
    assert learned.sample(points(3, 3)).isfinite().all()


def test_three_guided_channels_are_those_of_the_dit_repository(imagenet_dit_folder):
    options = {"label_space": IMAGENET, "classes": "imagenet"}
    three = dit(imagenet_dit_folder, guidance_channels=3, **options).denoiser(torch.arange(3), 4.0)
    four = dit(imagenet_dit_folder, **options).denoiser(torch.arange(3), 4.0)
    plain = dit(imagenet_dit_folder, **options).denoiser(torch.arange(3), 1.0)
    sample, when = torch.randn(3, 4, 8, 8), torch.tensor(400)
    assert torch.allclose(three(sample, when)[:, :3], four(sample, when)[:, :3], atol=1e-5)
    assert torch.allclose(three(sample, when)[:, 3], plain(sample, when)[:, 3], atol=1e-5)


def test_inversion_agrees_with_diffusers_and_leads_back(dit_folder):
    generator, some = dit(dit_folder, guidance_scale=1.0, num_steps=20), points(3)
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    denoise = torch.inference_mode()(generator.denoiser(some.labels, 1.0))
    times = times_from(scheduler, 20, 0.5)
    noisy = invert(denoise, scheduler, some.latents, times)
    inverse = DDIMInverseScheduler(clip_sample=False, timestep_spacing="trailing")
    inverse.set_timesteps(20)
    expected = some.latents
    for when in inverse.timesteps[:10]:
        expected = inverse.step(denoise(expected, when), when, expected).prev_sample
    assert torch.allclose(noisy, expected, atol=1e-4)


def gaussian(scheduler, std: float = 0.5):
    """Return the exact model of latents that are normal with a standard deviation."""

    def denoise(sample: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        alpha = scheduler.alphas_cumprod[int(time)]
        return (1 - alpha).sqrt() * sample / (alpha * std**2 + 1 - alpha)

    return denoise


def test_inversion_leads_back_to_the_centroid_and_fresh_noise_does_not():
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    centroid = 0.5 * torch.randn(4, 4, 8, 8)
    denoise = gaussian(scheduler)

    def way_back(inverted: bool) -> float:
        times = times_from(scheduler, 50, 0.7)
        fresh = scheduler.add_noise(centroid, torch.randn_like(centroid), times[:1].expand(4))
        start = invert(denoise, scheduler, centroid, times) if inverted else fresh
        return (reverse(denoise, scheduler, start, times) - centroid).abs().mean().item()

    assert way_back(inverted=True) < 0.05 < 0.3 < way_back(inverted=False)


def test_inversion_takes_no_noise_and_pure_noise_no_centroid(dit_folder):
    some = points(3)
    other_seeds = Points(
        *(getattr(points(3), n) for n in ("latents", "labels", "sources")), [7, 8, 9]
    )
    elsewhere = Points(-some.latents, some.labels, some.sources, some.seeds)
    inverted = dit(dit_folder, start="inversion")
    assert torch.equal(inverted.generate(some), inverted.generate(other_seeds))
    assert not torch.allclose(inverted.generate(some), inverted.generate(elsewhere), atol=1e-3)
    noise = dit(dit_folder, start="noise", strength=1.0)
    assert torch.equal(noise.generate(some), noise.generate(elsewhere))
    assert not torch.allclose(noise.generate(some), noise.generate(other_seeds), atol=1e-3)


@pytest.mark.parametrize("options", [{"start": "inversion"}, {"mode_guidance": 0.1}])
def test_schedulers_that_scale_their_samples_refuse_what_they_would_get_wrong(dit_folder, options):
    with pytest.raises(ConfigError, match="EulerDiscreteScheduler scales its samples"):
        dit(dit_folder, scheduler="EulerDiscreteScheduler", **options)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_close_to_full(dit_folder, sd_folder, precision):
    some = points(2)
    full, half = dit(dit_folder).sample(some), dit(dit_folder, precision=precision).sample(some)
    assert half.dtype == torch.float32 and 0 < (full - half).abs().mean() < 0.1 * full.std()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    full = VAE(str(sd_folder)).encode(images)
    half = VAE(str(sd_folder), precision=precision).encode(images)
    assert half.dtype == torch.float32 and 0 < (full - half).abs().mean() < 0.1 * full.std()


def test_wrong_class_maps_are_named(dit_folder, imagenet_dit_folder):
    with pytest.raises(
        ConfigError, match=r"knows 1000 classes, the data set has 3\n.*classes=imagenet"
    ):
        dit(imagenet_dit_folder, label_space=IMAGENET)
    with pytest.raises(ConfigError, match="class number 701, but .* knows only 10 classes"):
        dit(dit_folder, label_space=IMAGENET, classes="imagenet")
    with pytest.raises(ConfigError, match="no ImageNet-1K index"):
        dit(imagenet_dit_folder, classes="imagenet")


def test_class_of_the_label_space_conditions_the_model(imagenet_dit_folder):
    swapped = LabelSpace.from_classes(["n02102040", "n01440764", "n03888257"])
    options = {"classes": "imagenet"}
    some = points(2, 3)
    a = dit(imagenet_dit_folder, label_space=IMAGENET, **options).generate(some)
    b = dit(imagenet_dit_folder, label_space=swapped, **options).generate(
        Points(some.latents, torch.tensor([1, 0]), some.sources, some.seeds)
    )
    assert torch.equal(a, b)


def test_numbers_that_overflow_stop_the_run(dit_folder):
    model = dit(dit_folder)
    model.network.pos_embed.proj.weight.fill_(3e38)  # finite: they pass when the weights are read
    with pytest.raises(StageError, match="NaN"):
        model.generate(points(2))


def test_decode_is_the_decoder_and_clamps():
    assert torch.equal(Decode(Pixels()).generate(points()), points().latents.clamp(-1, 1))


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.5,
        shift_factor=0.25,
    ).save_pretrained(folder / "vae")
    return folder


def test_vae_applies_scale_and_shift_of_the_model(vae_folder):
    encoder, images = VAE(str(vae_folder)), torch.rand(2, 3, 16, 16) * 2 - 1
    raw = encoder.vae.encode(images).latent_dist.mode()
    latents = encoder.encode(images)
    assert latents.shape == (2, 4, 8, 8)
    assert torch.allclose(latents, (raw - 0.25) * 0.5)
    assert torch.allclose(encoder.decode(latents), encoder.vae.decode(raw).sample, atol=1e-5)


def test_grey_images_go_through_a_colour_vae(vae_folder):
    assert VAE(str(vae_folder)).encode(torch.zeros(1, 1, 16, 16)).shape == (1, 4, 8, 8)


def test_tiny_autoencoder_loads_by_its_own_config(tmp_path):
    AutoencoderTiny(
        encoder_block_out_channels=(16, 16),
        decoder_block_out_channels=(16, 16),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(tmp_path)
    encoder = VAE(str(tmp_path))
    assert encoder.decode(encoder.encode(torch.zeros(1, 3, 16, 16))).shape == (1, 3, 16, 16)


def test_posterior_is_drawn_by_the_seed_of_the_image(sd_folder):
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    mode = VAE(str(sd_folder))
    drawn = VAE(str(sd_folder), posterior="sample")
    together = drawn.encode(images, [1, 2, 3])
    apart = torch.cat([drawn.encode(images[i : i + 1], [i + 1]) for i in range(3)])
    assert torch.allclose(together, apart, atol=1e-5)
    spread = mode.vae.encode(images).latent_dist.std * mode.scale
    deviation = (together - mode.encode(images)) / spread
    assert abs(deviation.std().item() - 1) < 0.15 and not torch.allclose(
        together, drawn.encode(images, [4, 5, 6])
    )


def test_taef2_is_a_good_autoencoder_of_real_photos(shared):
    encoder = TAEF2(str(shared / "vae_taef2"))
    source = open_parquet(shared / "imagenette128", "image", "label")
    images = to_unit(torch.stack([to_uint8(source.read(i), 128, 3) for i in range(0, 9000, 1500)]))
    with torch.inference_mode():
        latents = encoder.encode(images)
        # Of pixels in [0, 1].
        error = (encoder.decode(latents).clamp(-1, 1) - images).square().mean() / 4
    assert (
        latents.shape == (6, 32, 16, 16) and abs(latents.mean()) < 0.2 and 0.7 < latents.std() < 1.1
    )
    assert -10 * error.log10() > 25  # its source states 27.2 dB at this size


def test_taef2_without_files_says_where_they_belong(tmp_path):
    with pytest.raises(DataError, match=r"no .*taef2_encoder.pth\n.*madebyollin/taesd"):
        TAEF2(str(tmp_path))
    (tmp_path / "taef2_encoder.pth").write_bytes(b"not a file of weights")
    with pytest.raises(DataError, match="not a file of weights"):
        TAEF2(str(tmp_path))


def test_weights_that_are_a_pickle_with_code_are_refused(tmp_path, sd_folder):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"weight": Bomb()}, tmp_path / "taef2_encoder.pth")
    with pytest.raises(DataError):
        TAEF2(str(tmp_path))
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text((sd_folder / "vae" / "config.json").read_text())
    torch.save({"weight": Bomb()}, tmp_path / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(DataError):
        VAE(str(tmp_path))
    assert not (tmp_path / "exploded").exists()


def test_wrong_or_missing_weights_say_what_to_do(dit_folder, vae_folder, tmp_path):
    with pytest.raises(DataError, match="encoder.path: no model in .*nope"):
        VAE(str(tmp_path / "nope"))
    with pytest.raises(ConfigError, match="holds a DiTTransformer2DModel"):
        VAE(str(dit_folder / "transformer"))
    with pytest.raises(DataError, match="generator.path"):
        dit(vae_folder)


def test_damaged_weights_say_which_folder(vae_folder, tmp_path):
    (tmp_path / "vae").mkdir()
    for file in (vae_folder / "vae").iterdir():
        (tmp_path / "vae" / file.name).write_bytes(
            file.read_bytes()[:2000] if file.suffix == ".safetensors" else file.read_bytes()
        )
    with pytest.raises(DataError, match="do not load"):
        VAE(str(tmp_path))


def test_no_network_fails_fast_and_names_the_place(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nobody listens there
    start = time.perf_counter()
    with pytest.raises(
        DataError, match="nobody/nothing is neither a local folder nor.*\n.*ddoq fetch"
    ):
        VAE("nobody/nothing")
    assert time.perf_counter() - start < 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "DDPMScheduler"])
def test_gpu_and_cpu_draw_the_same_noise_and_make_nearly_the_same_image(
    dit_folder, sd_folder, scheduler
):
    some = points(4)
    on_gpu = Points(some.latents.cuda(), some.labels.cuda(), some.sources.cuda(), some.seeds)
    for make, folder in ((dit, dit_folder), (stable_diffusion, sd_folder)):
        generator = make(folder, scheduler=scheduler)
        part = some if make is dit else some.part(slice(3))
        on_cpu = generator.generate(part)
        generator.networks().cuda()
        there = generator.generate(on_gpu if make is dit else on_gpu.part(slice(3)))
        assert there.is_cuda and torch.allclose(there.cpu(), on_cpu, atol=1e-2)
