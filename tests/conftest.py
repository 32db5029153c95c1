"""Tiny real models, shared by the tests: random weights, saved and loaded the way large ones are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from hspace.checkpoints import DiffusionModel, load_model


def _make_unet(**options: Any) -> UNet2DModel:
    """A U-Net of 16 x 16 images with attention in its deepest level and random weights."""
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "sample_size": 16,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 8,
    }
    return UNet2DModel(**(config | options)).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def make_unet() -> Callable[..., UNet2DModel]:
    return _make_unet


@pytest.fixture(scope="session")
def tiny_unet() -> UNet2DModel:
    return _make_unet()


@pytest.fixture(scope="session")
def tiny_pipeline_dir(tiny_unet: UNet2DModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "pipeline"
    DDPMPipeline(unet=tiny_unet, scheduler=DDPMScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_pipeline_dir: Path) -> DiffusionModel:
    return load_model(str(tiny_pipeline_dir), num_steps=3, device="cpu")
