"""Images go into a model's space and come back as diffusers' own autoencoders have them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vq_model import VQModel

from hspace.diffusion.checkpoints import load_model
from hspace.diffusion.codecs import PixelCodec


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_pixel_codec_is_the_identity(images: torch.Tensor) -> None:
    assert PixelCodec().decode(PixelCodec().encode(images)) is images
    assert PixelCodec().image_shape((3, 4, 5)) == (3, 4, 5)


def test_vq_codec_scales_and_quantises_on_the_way_back(tiny_ldm_dir: Path, images: torch.Tensor) -> None:
    codec = load_model(str(tiny_ldm_dir), device="cpu").codec
    theirs: Any = VQModel.from_pretrained(tiny_ldm_dir / "vqvae")
    latents = codec.encode(images)
    assert (latents - 0.18215 * theirs.encode(images).latents).abs().max() <= 1e-6
    assert (codec.decode(latents) - theirs.decode(latents / 0.18215).sample).abs().max() <= 1e-5
    nearest = theirs.quantize(latents / 0.18215)[0]
    assert (codec.decode(0.18215 * nearest) - codec.decode(latents)).abs().max() <= 1e-5
    assert codec.image_shape((3, 8, 4)) == (3, 16, 8)


def test_kl_codec_takes_the_mean(tiny_sd_dir: Path, images: torch.Tensor) -> None:
    codec = load_model(str(tiny_sd_dir), device="cpu").codec
    theirs: Any = AutoencoderKL.from_pretrained(tiny_sd_dir / "vae")
    latents = codec.encode(images)
    assert (latents - 0.18215 * theirs.encode(images).latent_dist.mean).abs().max() <= 1e-6
    assert (codec.decode(latents) - theirs.decode(latents / 0.18215).sample).abs().max() <= 1e-5
    assert codec.image_shape((4, 8, 8)) == (3, 16, 16)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_autoencoders_compute_in_float32_at_least(tiny_ldm_dir: Path, images: torch.Tensor, dtype: str) -> None:
    codec = load_model(str(tiny_ldm_dir), device="cpu", dtype=dtype).codec
    assert codec.encode(images).dtype == torch.promote_types(getattr(torch, dtype), torch.float32)
