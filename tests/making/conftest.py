"""Weights of the world of rooms, from a training that has hardly begun."""

from pathlib import Path
from typing import Literal

import pytest
import train_ddpm
import train_scorers

from hspace.system.files import package_path

CYCLES = (
    "cycles=[{images: 4, learning_rate: 1e-3, skip_dropout: 0, skip_exchange: 0, beta_schedule: linear},"
    "{images: 4, learning_rate: 1e-3, skip_dropout: 0, skip_exchange: 1, beta_schedule: linear}]"
)
TINY = [
    "world=rooms", "size=16", "train_images=8", "batch_size=2", "warmup_steps=1", "precision=float32", "threads=1",
    "unet.block_out_channels=[8,8,8,8]", "unet.attention_head_dim=8", "sampled_with=linear", "device=cpu", CYCLES,
]  # fmt: skip


TINY_SCORERS = {"train_images": 16, "steps": 2}


@pytest.fixture(scope="session")
def rooms_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the world of rooms, of a training that has hardly begun."""
    folder = tmp_path_factory.mktemp("rooms")
    train_ddpm.main([*TINY, f"output={folder / 'out'}", f"data={folder / 'data'}"])
    sizes = ["train_images=16", "held_out.images=32", "batch_size=8", "steps=2", "precision=float32", "threads=1"]
    own = [f"{name}.{key}={value}" for name in ("identity", "regions") for key, value in TINY_SCORERS.items()]
    target = [f"output={folder / 'weights' / 'rooms'}", f"data={folder / 'scorers_data'}"]
    train_scorers.main(["world=rooms", *sizes, *own, *target])
    (folder / "out" / "pipeline").rename(folder / "weights" / "rooms" / "ddpm")
    return folder / "weights"


@pytest.fixture
def rooms_installed(rooms_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package with these weights."""

    def path(name: Literal["weights", "conf"]) -> Path:
        return rooms_weights if name == "weights" else package_path(name)

    for module in ("hspace.diffusion.checkpoints", "hspace.scorers.embedded", "card.sections"):
        monkeypatch.setattr(f"{module}.package_path", path)
