"""Encoders and generators on tiny random-weight models of the real diffusers classes."""

from __future__ import annotations

import time

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, DiTTransformer2DModel

from ddoq.encoders import VAE, Pixels
from ddoq.errors import ConfigError, DataError, StageError
from ddoq.generators import Decode, DiT, Points
from ddoq.generators.dit import image_to_image


@pytest.fixture(scope="module")
def dit_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dit")
    torch.manual_seed(0)
    model = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        in_channels=4,
        out_channels=8,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
    )
    for parameter in model.parameters():  # the published initialisation predicts zero, which would hide mistakes
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder / "transformer")
    DDIMScheduler(clip_sample=False).save_pretrained(folder / "scheduler")
    return folder


def points(num: int = 7) -> Points:
    random = torch.Generator().manual_seed(1)
    return Points(
        torch.randn(num, 4, 8, 8, generator=random), torch.arange(num) % 10, torch.zeros(num).long(), list(range(num))
    )


def part(whole: Points, rows: slice) -> Points:
    return Points(whole.latents[rows], whole.labels[rows], whole.sources[rows], whole.seeds[rows])


def dit(folder, **changes) -> DiT:
    return DiT(str(folder), Pixels(), **{"strength": 0.6, "guidance_scale": 2.0, "num_steps": 5} | changes)


def test_output_does_not_depend_on_the_batch(dit_folder):
    generator, whole = dit(dit_folder), points()
    together = generator.generate(whole)
    apart = torch.cat([generator.generate(part(whole, slice(i, i + 1))) for i in range(7)])
    shuffled = generator.generate(part(whole, slice(2, 5)))
    assert together.std() > 0.1
    assert torch.allclose(together, apart, atol=1e-5) and torch.allclose(together[2:5], shuffled, atol=1e-5)


def test_noise_belongs_to_the_seed_and_class_to_the_label(dit_folder):
    generator, one = dit(dit_folder), points(1)
    base = generator.generate(one)
    assert torch.equal(base, generator.generate(one))
    assert not torch.allclose(base, generator.generate(Points(one.latents, one.labels, one.sources, [99])), atol=1e-3)
    assert not torch.allclose(
        base, generator.generate(Points(one.latents, one.labels + 1, one.sources, one.seeds)), atol=1e-4
    )


def test_low_strength_stays_near_the_centroid_and_high_strength_forgets_it(dit_folder):
    whole = points()
    other = Points(-whole.latents, whole.labels, whole.sources, whole.seeds)

    def memory(strength: float) -> float:
        generator = dit(dit_folder, strength=strength, guidance_scale=1.0, num_steps=10)
        return (generator.generate(whole) - generator.generate(other)).abs().mean().item()

    assert memory(0.1) > 3 * memory(1.0)


class PerfectDenoiser(torch.nn.Module):
    """Knows the clean sample, so the reverse process has to end there: an oracle for the sampling loop."""

    def __init__(self, clean: torch.Tensor, scheduler: DDIMScheduler):
        super().__init__()
        self.clean, self.scheduler, self.calls = clean, scheduler, 0
        self.config = type("Config", (), {"num_embeds_ada_norm": 10})

    def forward(self, sample, timestep, class_labels):
        self.calls += 1
        alpha = self.scheduler.alphas_cumprod[timestep][:, None, None, None]
        clean = self.clean.repeat(len(sample) // len(self.clean), 1, 1, 1)
        return type("Output", (), {"sample": (sample - alpha.sqrt() * clean) / (1 - alpha).sqrt()})


@pytest.mark.parametrize(("strength", "calls"), [(0.01, 1), (0.5, 5), (1.0, 10)])
def test_sampling_ends_at_the_clean_sample_and_runs_the_share_of_steps(strength, calls):
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True)
    clean, start = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    model = PerfectDenoiser(clean, scheduler)
    result = image_to_image(model, scheduler, start, torch.arange(3), torch.randn(3, 4, 8, 8), strength, 3.0, 10)
    assert torch.allclose(result, clean, atol=1e-3) and model.calls == calls


def test_nan_weights_stop_the_run(dit_folder, tmp_path):
    model = DiTTransformer2DModel.from_pretrained(dit_folder, subfolder="transformer")
    model.pos_embed.proj.weight.data.fill_(torch.nan)
    model.save_pretrained(tmp_path / "transformer")
    DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(StageError, match="NaN"):
        dit(tmp_path).generate(points(2))


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
    with pytest.raises(DataError, match="nobody/nothing is no local folder.*\n.*encoder.path=/that/folder"):
        VAE("nobody/nothing")
    assert time.perf_counter() - start < 10
