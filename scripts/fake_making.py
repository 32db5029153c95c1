"""The trainings of a world and its card, in their smallest size, on the fake device; see `fake_cuda.py`."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).parent / "making"))

import pace
import train_autoencoder
import train_ddpm
import train_scorers
import training
from card.base import Sizes
from card.sections import measure

from hspace.worlds import rendered

CYCLE = "{images: 12, learning_rate: 1e-3, skip_dropout: 0.5, skip_exchange: %s, beta_schedule: linear}"
UNET = ("unet.block_out_channels=[8,8,8,8]", "unet.norm_num_groups=4", "unet.attention_head_dim=8")
AUTOENCODER = ("images=16", "size=32", "held_out.images=4", "autoencoder.block_out_channels=[8,8,8,8]")
SMALL = ("train_images=24", "batch_size=4", "warmup_steps=2", "tracking=disabled")
CARD = Sizes(
    generated=24, steps=2, reference=24, training_renders=16, people=8, discovery=14, components=2, annotated=400,
    examples=2, calibration=12, judged=12, pairs=2, batch_size=12,
)  # fmt: skip


def making_of(world: str) -> dict[str, Callable[[Path, torch.device], None]]:
    """What is done to make a world, by name."""
    works = {"train_ddpm": _ddpm, "train_autoencoder": _autoencoder, "train_scorers": _scorers, "card": _card}
    return {name: partial(_on_device, work=work, world=world) for name, work in works.items()}


def _on_device(folder: Path, device: torch.device, work: Callable[[Path, str], None], world: str) -> None:
    with contextlib.ExitStack() as patches:
        for module in (rendered, train_scorers):
            patches.enter_context(patch.object(module, "painting_device", lambda: device))
        for module in (training, train_scorers):
            patches.enter_context(patch.object(module, "training_device", lambda cfg: device))
        patches.enter_context(patch.object(pace.Pace, "autocast", _as_it_is))
        work(folder, world)


@contextlib.contextmanager
def _as_it_is(self: pace.Pace, device: str) -> Iterator[None]:
    """Torch has no casts for a device in Python."""
    yield


def _places(folder: Path, world: str, name: str) -> list[str]:
    return [f"output={folder / name}", f"data={folder / 'data'}", f"world={world}"]


def _ddpm(folder: Path, world: str) -> None:
    cycles = [f"cycles=[{','.join(CYCLE % share for share in (0.5, 0))}]", "sampled_with=linear"]
    train_ddpm.main([*_places(folder, world, "ddpm"), *SMALL, "size=16", *UNET, *cycles])


def _autoencoder(folder: Path, world: str) -> None:
    train_autoencoder.main([*_places(folder, world, "autoencoder"), *SMALL, *AUTOENCODER])


def _scorers(folder: Path, world: str) -> None:
    words = [*_places(folder, world, "scorers"), "train_images=64", "batch_size=8", "steps=2", "held_out.images=32"]
    cfg = train_scorers.training_configuration("scorers", [f"world={world}"])
    for name in cfg.scorers:
        known = set(cfg[name]) & {"train_images", "steps", "batch_size"}
        values = {"train_images": 32, "steps": 2, "batch_size": 8}
        words += [f"{name}.{key}={values[key]}" for key in known]
    train_scorers.main(words)


def _card(folder: Path, world: str) -> None:
    measure(world, world, CARD, folder / "card", folder / "data")
