"""The mean of two networks: at its ends each of them, between them in proportion."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from mean_weights import main, mean_weights

from hspace.types import InputError


def written(folder: Path, seed: int, channels: int = 8, heads: int = 8, **scheduler: Any) -> Path:
    torch.manual_seed(seed)
    unet = UNet2DModel(
        sample_size=8, block_out_channels=(channels, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        attention_head_dim=heads,
    )  # fmt: skip
    DDPMPipeline(unet=unet, scheduler=DDPMScheduler(**scheduler)).save_pretrained(folder)
    return folder


def weight(folder: Path) -> torch.Tensor:
    return UNet2DModel.from_pretrained(folder / "unet").conv_in.weight.float()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_weights_lie_between_those_of_the_two(tmp_path: Path, share: float) -> None:
    first, second = written(tmp_path / "a", 0), written(tmp_path / "b", 1)
    assert main([str(first), str(second), str(share), str(tmp_path / "mean")]) == 0
    expected = (1 - share) * weight(first) + share * weight(second)
    torch.testing.assert_close(weight(tmp_path / "mean"), expected, rtol=1e-3, atol=1e-4)


def test_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    first, wider = written(tmp_path / "a", 0), written(tmp_path / "b", 1, channels=16)
    heads = written(tmp_path / "c", 1, heads=4)  # its weights have the same shapes
    noisier = written(tmp_path / "d", 1, beta_end=0.03)
    other = written(tmp_path / "e", 1, trained_betas=[0.01] * 1000)
    for second, share, message in (
        (first, 2.0, "SHARE"),
        (tmp_path / "x", 0.5, "not the folder"),
        (wider, 0.5, "unet: .* and .* differ in block_out_channels, and have no mean"),
        (heads, 0.5, "unet: .* differ in attention_head_dim"),
        (noisier, 0.5, "scheduler: .* differ in beta_end"),
        (other, 0.5, "scheduler: .* differ in trained_betas"),
    ):
        with pytest.raises(InputError, match=message):
            mean_weights(first, second, share, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
