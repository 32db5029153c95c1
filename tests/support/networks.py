"""The smallest networks of each kind that diffusers builds, with inputs of two rows."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

diffusers: Any = import_module("diffusers")
"""Any, since its stubs export nothing."""

Network = tuple[Any, dict[str, Any], int]
"""A network, the arguments of a pass, and how many tokens an image has."""


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
    make.__name__: make for make in (dit, pixart, sd3, flux, flux2, qwen, sana, lumina2, zimage)
}
