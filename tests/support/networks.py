"""The smallest networks of each kind that diffusers builds, with inputs of two rows."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

diffusers: Any = import_module("diffusers")
"""Any, since its stubs export nothing."""

Network = tuple[Any, dict[str, Any], int]
"""A network, the arguments of a pass, and how many tokens an image has; 0 where there are none."""


def wake(network: Any) -> Any:
    """In evaluation mode; parameters that are 0 before training are drawn, since they would hide what comes before."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return network.eval().requires_grad_(False)


def _make(kind: str, inputs: dict[str, Any], tokens: int = 16, **config: Any) -> Network:
    torch.manual_seed(0)
    return wake(getattr(diffusers, kind)(**config)), {**inputs, "return_dict": False}, tokens


def _draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _grid(axes: int) -> Tensor:
    ids = torch.zeros(16, axes)
    ids[:, 1], ids[:, 2] = torch.arange(16) // 4, torch.arange(16) % 4
    return ids


IMAGE: dict[str, Any] = {"hidden_states": _draw(2, 4, 8, 8), "timestep": torch.full((2,), 500.0)}
SHORT = torch.full((2,), 0.5)
HEADS: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 8}


def unet(**options: Any) -> Any:
    """A U-Net of pixels with attention in its deepest level."""
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "sample_size": 16, "block_out_channels": (8, 16), "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "layers_per_block": 1, "norm_num_groups": 4,
        "attention_head_dim": 8,
    }  # fmt: skip
    return diffusers.UNet2DModel(**(config | options)).eval()


def text_unet(**options: Any) -> Any:
    """A U-Net of latents that attends to a prompt."""
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "sample_size": 8, "block_out_channels": (8, 16), "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "layers_per_block": 1, "norm_num_groups": 4,
        "cross_attention_dim": 16, "attention_head_dim": 2,
    }  # fmt: skip
    return diffusers.UNet2DConditionModel(**(config | options)).eval()


def _of_pixels(network: Any, size: int = 16, **inputs: Any) -> Network:
    given = {"sample": _draw(2, network.config["in_channels"], size, size), "timestep": torch.tensor([500, 500])}
    return network.requires_grad_(False), {**given, **inputs, "return_dict": False}, 0


def pixel() -> Network:
    return _of_pixels(unet())


def grey() -> Network:
    return _of_pixels(unet(in_channels=1, out_channels=1))


def classes() -> Network:
    """ADM's kind: by class, with a learnt variance."""
    network = unet(num_class_embeds=5, out_channels=6, resnet_time_scale_shift="scale_shift")
    return _of_pixels(network, class_labels=torch.tensor([1, 3]))


def latent() -> Network:
    return _of_pixels(unet(sample_size=8), 8)


def stable_diffusion() -> Network:
    return _of_pixels(text_unet(), 8, encoder_hidden_states=_draw(2, 5, 16))


def sdxl() -> Network:
    network = text_unet(
        block_out_channels=(16, 32), norm_num_groups=8, attention_head_dim=(2, 4), transformer_layers_per_block=(1, 2),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16, cross_attention_dim=32,
    )  # fmt: skip
    added = {"text_embeds": _draw(2, 16), "time_ids": torch.tensor([[16.0, 16, 0, 0, 16, 16]] * 2)}
    return _of_pixels(network, 8, encoder_hidden_states=_draw(2, 5, 32), added_cond_kwargs=added)


def dit() -> Network:
    return _make(
        "DiTTransformer2DModel", {**IMAGE, "class_labels": torch.tensor([3, 7])}, **HEADS, in_channels=4,
        out_channels=8, num_layers=4, sample_size=8, patch_size=2, num_embeds_ada_norm=10,
        norm_type="ada_norm_zero", norm_elementwise_affine=False,
    )  # fmt: skip


def pixart() -> Network:
    sizes = {"resolution": None, "aspect_ratio": None}
    return _make(
        "PixArtTransformer2DModel",
        {**IMAGE, "encoder_hidden_states": _draw(2, 5, 8), "added_cond_kwargs": sizes}, **HEADS, in_channels=4,
        out_channels=8, num_layers=4, sample_size=8, cross_attention_dim=16, patch_size=2, caption_channels=8,
        use_additional_conditions=False,
    )  # fmt: skip


def sd3() -> Network:
    return _make(
        "SD3Transformer2DModel",
        {**IMAGE, "encoder_hidden_states": _draw(2, 5, 16), "pooled_projections": _draw(2, 16)}, **HEADS,
        sample_size=8, patch_size=2, in_channels=4, num_layers=4, joint_attention_dim=16, out_channels=4,
        caption_projection_dim=16, pooled_projection_dim=16, pos_embed_max_size=16,
    )  # fmt: skip


def flux() -> Network:
    inputs = {
        "hidden_states": _draw(2, 16, 4), "timestep": SHORT, "guidance": torch.full((2,), 3.5),
        "encoder_hidden_states": _draw(2, 5, 32), "pooled_projections": _draw(2, 32),
        "txt_ids": torch.zeros(5, 3), "img_ids": _grid(3),
    }  # fmt: skip
    return _make(
        "FluxTransformer2DModel", inputs, patch_size=1, in_channels=4, num_layers=2, num_single_layers=2,
        attention_head_dim=16, guidance_embeds=True, num_attention_heads=2, joint_attention_dim=32,
        pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip


def flux2() -> Network:
    inputs = {
        "hidden_states": _draw(2, 16, 4), "timestep": SHORT, "guidance": torch.full((2,), 3.5),
        "encoder_hidden_states": _draw(2, 5, 32), "txt_ids": torch.zeros(2, 5, 4),
        "img_ids": _grid(4)[None].repeat(2, 1, 1),
    }  # fmt: skip
    return _make(
        "Flux2Transformer2DModel", inputs, patch_size=1, in_channels=4, num_layers=2, num_single_layers=2,
        attention_head_dim=16, num_attention_heads=2, joint_attention_dim=32, timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4), mlp_ratio=2.0,
    )  # fmt: skip


def qwen() -> Network:
    inputs = {
        "hidden_states": _draw(2, 16, 16), "timestep": SHORT, "encoder_hidden_states": _draw(2, 5, 16),
        "encoder_hidden_states_mask": torch.ones(2, 5, dtype=torch.bool), "img_shapes": [[(1, 4, 4)]] * 2,
    }  # fmt: skip
    return _make(
        "QwenImageTransformer2DModel", inputs, patch_size=2, in_channels=16, out_channels=4, num_layers=3,
        attention_head_dim=16, num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip


def sana() -> Network:
    return _make(
        "SanaTransformer2DModel", {**IMAGE, "encoder_hidden_states": _draw(2, 5, 8)}, 64, **HEADS, in_channels=4,
        out_channels=4, num_layers=3, num_cross_attention_heads=2, cross_attention_head_dim=8,
        cross_attention_dim=16, caption_channels=8, sample_size=8, patch_size=1,
    )  # fmt: skip


def lumina2() -> Network:
    inputs = {
        "hidden_states": _draw(2, 4, 8, 8), "timestep": SHORT, "encoder_hidden_states": _draw(2, 5, 16),
        "encoder_attention_mask": torch.ones(2, 5, dtype=torch.bool),
    }  # fmt: skip
    return _make(
        "Lumina2Transformer2DModel", inputs, sample_size=8, patch_size=2, in_channels=4, hidden_size=24,
        num_layers=3, num_refiner_layers=1, num_attention_heads=3, num_kv_heads=1, multiple_of=16,
        axes_dim_rope=(4, 2, 2), axes_lens=(32, 32, 32), cap_feat_dim=16,
    )  # fmt: skip


def zimage() -> Network:
    """Pads every image to 32 tokens."""
    inputs = {"x": list(_draw(2, 4, 1, 8, 8)), "t": SHORT, "cap_feats": list(_draw(2, 5, 16))}
    return _make(
        "ZImageTransformer2DModel", inputs, 32, all_patch_size=(2,), all_f_patch_size=(1,), in_channels=4, dim=32,
        n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16, axes_dims=[8, 4, 4],
        axes_lens=[64, 64, 64],
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], Network]] = {
    make.__name__: make
    for make in (
        pixel, grey, classes, latent, stable_diffusion, sdxl, dit, pixart, sd3, flux, flux2, qwen, sana, lumina2, zimage
    )
}  # fmt: skip
