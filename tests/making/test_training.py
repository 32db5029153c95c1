"""Checkpoints: a training goes on from its own, and refuses that of another configuration."""

from pathlib import Path
from typing import Any

import encoded
import pytest
import torch
from configuration import training_configuration
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d import UNet2DModel
from omegaconf import DictConfig
from training import Training, run_spec

from hspace.types import InputError

TINY = ["device=cpu", "unet.block_out_channels=[8,8,8,8]", "unet.attention_head_dim=8"]


def training(cfg: DictConfig) -> Training:
    torch.manual_seed(0)
    return Training.start(UNet2DModel(sample_size=8, **cfg.unet), cfg)


def saved(folder: Path, *words: str, name: str = "ddpm") -> Path:
    path = folder / "checkpoint.pt"
    training(training_configuration(name, [*TINY, *words])).save(path)
    return path


def test_a_checkpoint_of_the_same_weights_is_continued_elsewhere(tmp_path: Path) -> None:
    path = saved(tmp_path)
    elsewhere = ["output=other", "data=other", "precision=bfloat16", "threads=3", "checkpoint_minutes=1"]
    follower = training(training_configuration("ddpm", [*TINY, *elsewhere, "tracking=disabled", "sampled_with=linear"]))
    with torch.no_grad():
        next(follower.network.parameters()).zero_()
    follower.resume(path)
    assert next(follower.network.parameters()).any(), "its weights are the checkpoint's"


@pytest.mark.parametrize(
    ("words", "there", "here"),
    [
        (["seed=11"], "seed=10", "seed=11"),
        (["world=rooms", *TINY[1:], "train_images=65536", "batch_size=128"], "world=portraits, cycles=", "world=rooms"),
        (
            ["unet.layers_per_block=2", "ema_decay=0.9"],
            "ema_decay=0.9995, unet.layers_per_block=1",
            "ema_decay=0.9, unet.layers_per_block=2",
        ),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused(
    tmp_path: Path, words: list[str], there: str, here: str
) -> None:
    path = saved(tmp_path)
    with pytest.raises(InputError) as raised:
        training(training_configuration("ddpm", [*TINY, *words])).resume(path)
    line = str(raised.value)
    assert line.startswith(f"{path} was trained with {there}") and f"and not with {here}" in line
    assert line.endswith("set another output, or remove it") and "\n" not in line


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_what_is_not_a_checkpoint_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "checkpoint.pt"
    if content is None:
        torch.save({"step": 3}, path)  # of a training that kept no settings
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match="is not a checkpoint that says how it was trained: set another output"):
        training(training_configuration("ddpm", TINY)).resume(path)


def test_a_truncated_checkpoint_is_one_line(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="is not a checkpoint"):
        training(training_configuration("ddpm", TINY)).resume(path)


def test_runs_are_named_by_their_training() -> None:
    specs = {
        name: run_spec(name, training_configuration(name, [f"output=.train/{name}"]))
        for name in ("ddpm", "latent", "transformer", "autoencoder")
    }
    assert {name: spec.name for name, spec in specs.items()} == {name: f"train-{name}" for name in specs}
    assert specs["latent"].config["autoencoder"] == ".train/portraits/autoencoder/vqvae"
    assert len({spec.id for spec in specs.values()}) == len(specs)


def test_the_factor_of_an_autoencoder_is_read_without_its_weights(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "block_out_channels": (4, 4, 4), "norm_num_groups": 2, "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
    }  # fmt: skip
    network: Any = AutoencoderKL(**options)
    network.save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    images = torch.zeros(1, 3, 16, 16)
    assert encoded.reduction(str(tmp_path)) == 4 == 16 // network.encode(images).latent_dist.mean.shape[-1]
    with pytest.raises(InputError, match=r"is not a folder that train_autoencoder\.py wrote"):
        encoded.reduction(str(tmp_path / "nowhere"))
