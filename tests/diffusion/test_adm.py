"""ADM's U-Nets in the layout of a fork of diffusers give what the fork computes."""

import json
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from hspace.diffusion.adm import own_words
from hspace.diffusion.checkpoints import load_model
from hspace.diffusion.sampling import sample
from hspace.system.files import package_path
from hspace.types import InputError

diffusers: Any = import_module("diffusers")
"""Any, since its stubs export nothing."""

FORK = {"time_embedding_type": "adm", "attention_legacy_order": True}


def network(**options: Any) -> Any:
    """With all that ADM has: four heads, resampling in residual blocks, scale and shift, two outputs per channel."""
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "sample_size": 16, "out_channels": 6, "block_out_channels": (8, 16), "layers_per_block": 1,
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"), "norm_num_groups": 4,
        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"), "attn_norm_num_groups": 4,
        "attention_head_dim": 4, "resnet_time_scale_shift": "scale_shift", "upsample_type": "resnet",
        "downsample_type": "resnet",
    }  # fmt: skip
    return diffusers.UNet2DModel(**(config | options)).eval()


def save(folder: Path, unet: Any, **config: Any) -> Path:
    """All files at the root, as on the hub, and settings in the configuration that diffusers does not know."""
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(variance_type="learned_range")).save_pretrained(folder)
    for name in ("unet", "scheduler"):
        for file in (folder / name).iterdir():
            file.rename(folder / file.name)
        (folder / name).rmdir()
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


class CosineFirst(nn.Module):
    """Frequencies from 1 down to nearly 1 / 10,000, all cosines before all sines."""

    def forward(self, times: Tensor) -> Tensor:
        angles = times[:, None] * torch.tensor([math.exp(-math.log(10_000) * i / 4) for i in range(4)])
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class LegacyAttention:
    """One head after the other: its queries, keys and values are consecutive channels of the three outputs joined."""

    def __call__(self, attn: Any, hidden_states: Tensor, **_: Any) -> Tensor:
        rows, channels, height, width = hidden_states.shape
        x = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)
        joined, size, heads = torch.cat([attn.to_q(x), attn.to_k(x), attn.to_v(x)], dim=2), channels // attn.heads, []
        for head in range(attn.heads):
            q, k, v = (joined[..., (3 * head + i) * size : (3 * head + i + 1) * size] for i in range(3))
            heads.append((q @ k.transpose(1, 2) / math.sqrt(size)).softmax(dim=2) @ v)
        out = attn.to_out[0](torch.cat(heads, dim=2)).transpose(1, 2).reshape(rows, channels, height, width)
        return (out + hidden_states) / attn.rescale_output_factor


@pytest.mark.parametrize("classes", [None, 5])
def test_a_model_of_the_fork(tmp_path: Path, classes: int | None) -> None:
    theirs = network(num_class_embeds=classes)
    model = load_model(str(save(tmp_path, theirs, **FORK)), device="cpu", num_steps=2, prompt="3" if classes else "")
    plain = load_model(str(save(tmp_path / "plain", network(num_class_embeds=classes))), device="cpu",
                       prompt="3" if classes else "")  # fmt: skip
    theirs.time_proj = CosineFirst()
    for module in theirs.modules():
        if isinstance(module, Attention):
            module.set_processor(LegacyAttention())  # pyright: ignore[reportArgumentType]
    x_t = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    labels = None if classes is None else torch.tensor([3, 3])
    with torch.no_grad():
        wanted = theirs(x_t, 500, class_labels=labels).sample[:, :3]
        encoded = model.denoiser.encode(x_t, 500, model.cond)
        found = model.denoiser.decode(encoded.h, encoded)
        other = plain.denoiser.encode(x_t, 500, plain.cond)
        assert (plain.denoiser.decode(other.h, other) - wanted).abs().max() > 1e-4, "the order matters"
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert sample(model, model.latents([1])).x_0.shape == (1, 3, 16, 16)
    assert model.identity != plain.identity


def test_other_embeddings_are_left_alone(tmp_path: Path) -> None:
    assert own_words({"time_embedding_type": "fourier"}) == own_words({}) == {}
    folder = save(tmp_path, network(), time_embedding_type="cosine")
    with pytest.raises(InputError, match=r"the weights of .* cannot be read"):
        load_model(str(folder), device="cpu")


def test_the_configuration_names_a_model_and_its_classes() -> None:
    with initialize_config_dir(str(package_path("conf")), version_base="1.3"):
        model = compose("config", ["model=adm"]).model
    assert model.path == "xutongda/adm_ffhq_256x256" and model.prompt is None and model.tap == "after"
