"""The split U-Net returns the bits of the whole one, and an edit at the tap those of a forward hook."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel

from hspace.types import InputError
from hspace.unet import H_SPACES, SemanticUNet

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


@pytest.mark.parametrize("h_space", H_SPACES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_split_forward_is_bitwise_the_whole(make_unet: MakeUNet, variant: str, h_space: str) -> None:
    unet = make_unet(**VARIANTS[variant])
    semantic = SemanticUNet(unet, h_space)
    x_t = noisy_images(unet)
    for t in (999, 1):
        encoded = semantic.encode(x_t, t)
        assert tuple(encoded.h.shape[1:]) == semantic.h_shape
        assert torch.equal(semantic.decode(encoded.h, encoded), unet(x_t, t).sample)  # pyright: ignore


@pytest.mark.parametrize("h_space", H_SPACES)
@pytest.mark.parametrize("variant", ["attention", "scale and shift"])
def test_an_edit_is_bitwise_a_forward_hook(make_unet: MakeUNet, variant: str, h_space: str) -> None:
    unet: Any = make_unet(**VARIANTS[variant])
    semantic = SemanticUNet(unet, h_space)
    x_t = noisy_images(unet)
    delta_h = torch.randn(2, *semantic.h_shape, generator=torch.Generator().manual_seed(2))
    encoded = semantic.encode(x_t, 500)
    ours = semantic.decode(encoded.h + delta_h, encoded)

    if h_space == "before":
        handle = unet.mid_block.register_forward_pre_hook(lambda _, inputs: (inputs[0] + delta_h, *inputs[1:]))
    else:
        tapped = unet.mid_block if h_space == "after" else unet.mid_block.resnets[-1].norm2
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
    ("options", "h_space", "message"),
    [
        ({}, "deep", "h_space must be one of before, middle, after, got deep"),
        ({"mid_block_type": None}, "after", "no mid block"),
        ({"num_class_embeds": 4}, "after", "conditioned on classes"),
        ({"sample_size": None}, "after", "no sample_size"),
        ({"out_channels": 6}, "after", "got 3 to 6"),
    ],
)
def test_unsupported_unets(make_unet: MakeUNet, options: dict[str, Any], h_space: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SemanticUNet(make_unet(**options), h_space)
