"""The split U-Net returns the bits of the whole one, and an edit at the tap those of a forward hook."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from hspace.diffusion.denoiser import Conditioning
from hspace.diffusion.taps import TAPS
from hspace.diffusion.unet import SemanticUNet
from hspace.types import InputError

MakeUNet = Callable[..., UNet2DModel]
VARIANTS: dict[str, dict[str, Any]] = {
    "attention": {},
    "two layers": {"layers_per_block": 2},
    "no attention": {"add_attention": False, "down_block_types": ("DownBlock2D",) * 2},
    "skip blocks": {
        "block_out_channels": (32, 32),
        "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
        "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
    },
    "resnet blocks": {
        "down_block_types": ("ResnetDownsampleBlock2D",) * 2,
        "up_block_types": ("ResnetUpsampleBlock2D",) * 2,
    },
    "scale and shift": {"resnet_time_scale_shift": "scale_shift"},
    "centred, fourier time": {"center_input_sample": True, "time_embedding_type": "fourier"},
    "mid scale factor": {"mid_block_scale_factor": 1.4142},
    "rectangular": {"sample_size": (16, 8)},
}


def noisy_images(unet: UNet2DModel) -> torch.Tensor:
    size = unet.config["sample_size"]
    shape = (size, size) if isinstance(size, int) else size
    return torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("tap", TAPS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_split_forward_is_bitwise_the_whole(make_unet: MakeUNet, variant: str, tap: str) -> None:
    unet = make_unet(**VARIANTS[variant])
    semantic = SemanticUNet(unet, tap)
    x_t = noisy_images(unet)
    for t in (999, 1):
        encoded = semantic.encode(x_t, t)
        assert tuple(encoded.h.shape[1:]) == semantic.h_shape
        assert torch.equal(semantic.decode(encoded.h, encoded), unet(x_t, t).sample)  # pyright: ignore


@pytest.mark.parametrize("tap", TAPS)
@pytest.mark.parametrize("variant", ["attention", "scale and shift"])
def test_an_edit_is_bitwise_a_forward_hook(make_unet: MakeUNet, variant: str, tap: str) -> None:
    unet: Any = make_unet(**VARIANTS[variant])
    semantic = SemanticUNet(unet, tap)
    x_t = noisy_images(unet)
    delta_h = torch.randn(2, *semantic.h_shape, generator=torch.Generator().manual_seed(2))
    encoded = semantic.encode(x_t, 500)
    ours = semantic.decode(encoded.h + delta_h, encoded)

    if tap == "before":
        handle = unet.mid_block.register_forward_pre_hook(lambda _, inputs: (inputs[0] + delta_h, *inputs[1:]))
    else:
        tapped = unet.mid_block if tap == "after" else unet.mid_block.resnets[-1].norm2
        handle = tapped.register_forward_hook(lambda _, inputs, output: output + delta_h)
    try:
        hooked = unet(x_t, 500).sample
    finally:
        handle.remove()
    assert torch.equal(ours, hooked)
    assert (hooked - unet(x_t, 500).sample).abs().max() > 1e-3


def test_shapes(make_unet: MakeUNet, tiny_unet: UNet2DModel) -> None:
    semantic = SemanticUNet(tiny_unet)
    assert semantic.sample_shape == (3, 16, 16)
    assert semantic.h_shape == (16, 8, 8)
    assert SemanticUNet(make_unet(sample_size=(16, 8))).h_shape == (16, 8, 4)


def test_input_of_another_dtype_is_cast(tiny_unet: UNet2DModel) -> None:
    semantic = SemanticUNet(tiny_unet)
    assert semantic.encode(noisy_images(tiny_unet).double(), 5).h.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "tap", "message"),
    [
        ({}, "deep", "tap must be one of before, middle, after, .* got deep"),
        ({"mid_block_type": None}, "after", "no mid block"),
        ({"class_embed_type": "timestep"}, "after", "classes must be numbered"),
        ({"sample_size": 15}, "after", "multiples of 2, got sample_size 15"),
        ({}, "block:0", "tap block:0 is not there; tap it before, middle or after the mid block"),
        ({"sample_size": None}, "after", "no sample_size"),
        ({"out_channels": 5}, "after", "got 3 to 5"),
    ],
)
def test_unsupported_unets(make_unet: MakeUNet, options: dict[str, Any], tap: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SemanticUNet(make_unet(**options), tap)


CONDITIONAL: dict[str, dict[str, Any]] = {
    "version 1": {},
    "version 2": {"use_linear_projection": True, "upcast_attention": True, "attention_head_dim": (1, 2)},
    "text in the middle only": {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2},
    "no text in the middle": {"mid_block_type": "UNetMidBlock2D"},
    "two layers, rectangular": {"layers_per_block": 2, "sample_size": (16, 8)},
}


def make_conditional(**options: Any) -> UNet2DConditionModel:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "cross_attention_dim": 12,
        "attention_head_dim": 2,
    }
    return UNet2DConditionModel(**(config | options)).eval().requires_grad_(False)


def prompt(passes: int, guidance: float) -> Conditioning:
    context = torch.randn(passes, 5, 12, generator=torch.Generator().manual_seed(5))
    return Conditioning("a man", {"encoder_hidden_states": context}, guidance)


def latents_of(unet: UNet2DConditionModel) -> torch.Tensor:
    return torch.randn(2, *SemanticUNet(unet).sample_shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("tap", TAPS)
@pytest.mark.parametrize("variant", CONDITIONAL)
def test_split_forward_with_text_is_bitwise_the_whole(variant: str, tap: str) -> None:
    unet = make_conditional(**CONDITIONAL[variant])
    semantic, x_t, cond = SemanticUNet(unet, tap), latents_of(unet), prompt(1, 1.0)
    encoded = semantic.encode(x_t, 500, cond)
    assert tuple(encoded.h.shape[1:]) == semantic.h_shape
    theirs = unet(x_t, 500, cond.inputs["encoder_hidden_states"].expand(2, -1, -1)).sample  # pyright: ignore
    assert torch.equal(semantic.decode(encoded.h, encoded), theirs)


@pytest.mark.parametrize("tap", TAPS)
def test_guidance_is_two_passes_in_one_batch(tap: str) -> None:
    unet: Any = make_conditional()
    semantic, x_t, cond = SemanticUNet(unet, tap), latents_of(unet), prompt(2, 7.5)
    encoded = semantic.encode(x_t, 500, cond)
    assert torch.equal(encoded.h, semantic.encode(torch.cat([x_t] * 2), 500, cond).h[:2])
    both = unet(torch.cat([x_t, x_t]), 500, cond.inputs["encoder_hidden_states"].repeat_interleave(2, dim=0)).sample
    assert torch.equal(semantic.decode(encoded.h, encoded), both[2:] + 7.5 * (both[:2] - both[2:]))


@pytest.mark.parametrize("tap", TAPS)
def test_an_edit_moves_both_passes_alike(tap: str) -> None:
    unet: Any = make_conditional()
    semantic, x_t, cond = SemanticUNet(unet, tap), latents_of(unet), prompt(2, 3.0)
    delta_h = torch.randn(2, *semantic.h_shape, generator=torch.Generator().manual_seed(2))
    outputs = []
    for features in cond.inputs["encoder_hidden_states"]:
        encoded = semantic.encode(x_t, 500, Conditioning("", {"encoder_hidden_states": features[None]}))
        outputs.append(semantic.decode(encoded.h + delta_h, encoded))
    guided = semantic.encode(x_t, 500, cond)
    ours = semantic.decode(guided.h + delta_h, guided)
    assert (ours - (outputs[1] + 3.0 * (outputs[0] - outputs[1]))).abs().max() <= 1e-5
    assert (ours - semantic.decode(guided.h, guided)).abs().max() > 1e-3


@pytest.mark.parametrize("tap", TAPS)
def test_selected_samples_decode_to_what_they_do_together(tap: str) -> None:
    """With guidance, where each sample has two passes."""
    unet: Any = make_conditional()
    semantic, x_t, cond = SemanticUNet(unet, tap), latents_of(unet), prompt(2, 3.0)
    encoded = semantic.encode(x_t, 500, cond)
    together = semantic.decode(encoded.h, encoded)
    selected = encoded.select([1, 0, 1])
    assert (semantic.decode(selected.h, selected) - together[[1, 0, 1]]).abs().max() <= 1e-5


def test_text_where_there_is_none_and_none_where_there_is(tiny_unet: UNet2DModel) -> None:
    x_t = torch.zeros(1, 3, 16, 16)
    with pytest.raises(InputError, match="needs a condition, and an unconditional one takes none"):
        SemanticUNet(tiny_unet).encode(x_t, 0, prompt(1, 1.0))
    with pytest.raises(InputError, match="needs a condition, and an unconditional one takes none"):
        SemanticUNet(make_conditional()).encode(torch.zeros(1, 4, 8, 8), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"addition_embed_type": "text"}, "like Stable Diffusion 1, 2 or XL, got addition_embed_type text"),
        ({"time_cond_proj_dim": 8}, "got time_cond_proj_dim 8"),
        ({"in_channels": 9}, "got 9 to 4"),
        ({"sample_size": 9}, "the sides of x_t must be multiples of 2, got sample_size 9"),
        ({"class_embed_type": "timestep"}, "got class_embed_type timestep"),
    ],
)
def test_unsupported_unets_with_text(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SemanticUNet(make_conditional(**options))


def test_the_dtype_follows_a_network_that_is_moved(make_unet: MakeUNet) -> None:
    unet = make_unet()
    split, x_t = SemanticUNet(unet, "after"), noisy_images(unet)
    for dtype in (torch.float32, torch.float64, torch.float32):
        split.to(dtype)
        encoded = split.encode(x_t, 5)
        assert encoded.h.dtype == split.decode(encoded.h, encoded).dtype == dtype
