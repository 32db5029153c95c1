"""The architecture of google/ddpm-ema-celebahq-256 with random weights: for speed they are as good as trained ones."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from hspace.diffusion.checkpoints import DiffusionModel, load_model

CELEBAHQ: dict[str, Any] = {
    "sample_size": 256,
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "down_block_types": (*("DownBlock2D",) * 4, "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *("UpBlock2D",) * 4),
    "layers_per_block": 2,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
}
"""Its U-Net's config, where it differs from diffusers' defaults."""


def celebahq(dtype: str) -> DiffusionModel:
    """The random model, saved and loaded the way a real one is."""
    with tempfile.TemporaryDirectory() as folder:
        return load_model(str(saved_celebahq(Path(folder))), dtype=dtype)


def saved_celebahq(folder: Path) -> Path:
    """The folder of the random model, saved in a folder the way a real one is."""
    torch.manual_seed(0)
    path = folder / "celebahq-architecture"
    DDPMPipeline(unet=UNet2DModel(**CELEBAHQ).eval(), scheduler=DDPMScheduler()).save_pretrained(path)
    return path
