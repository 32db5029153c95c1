"""The trainings of another world than that of the portraits, a few steps each."""

import json
from pathlib import Path

import pytest
import train_ddpm
import train_scorers
from configuration import training_configuration
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline

from hspace.types import InputError
from hspace.worlds.world import WORLDS

CYCLES = (
    "cycles=[{images: 4, learning_rate: 1e-3, skip_dropout: 0, skip_exchange: 0, beta_schedule: linear},"
    "{images: 4, learning_rate: 1e-3, skip_dropout: 0, skip_exchange: 1, beta_schedule: linear}]"
)
TINY = [
    "world=rooms", "size=16", "train_images=8", "batch_size=2", "warmup_steps=1", "precision=float32", "threads=1",
    "unet.block_out_channels=[8,8,8,8]", "unet.attention_head_dim=8", "sampled_with=linear", "device=cpu", CYCLES,
]  # fmt: skip


TINY_SCORERS = {"train_images": 16, "steps": 2}


def test_a_world_changes_what_its_file_says_and_an_override_comes_last() -> None:
    cfg = training_configuration("ddpm", ["world=rooms", "unet.attention_head_dim=16"])
    assert list(cfg.unet.block_out_channels) == [16, 32, 64, 48] and cfg.unet.attention_head_dim == 16
    assert cfg.unet.layers_per_block == training_configuration("ddpm", []).unet.layers_per_block
    assert cfg.unet.block_out_channels[-1] * (cfg.size / 8) ** 2 / (3 * cfg.size**2) <= 0.34


@pytest.mark.parametrize("name", ["ddpm", "scorers", "autoencoder", "latent", "transformer"])
def test_no_two_worlds_write_into_one_folder(name: str) -> None:
    outputs = {training_configuration(name, [f"world={world}"]).output for world in WORLDS.names()}
    assert len(outputs) == len(WORLDS.names())


def test_rooms_are_learnt_by_the_same_trainer(tmp_path: Path) -> None:
    train_ddpm.main([*TINY, f"output={tmp_path / 'out'}", f"data={tmp_path / 'data'}"])
    assert DDPMPipeline.from_pretrained(tmp_path / "out" / "pipeline").unet.config["sample_size"] == 16
    painted = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert painted == ["rooms_v1_16px_8_seed10.npy", "rooms_v1_16px_8_seed10_varied.npy"]


def test_rooms_have_scorers_of_their_own(tmp_path: Path) -> None:
    sizes = ["train_images=16", "held_out.images=32", "batch_size=8", "steps=2", "precision=float32", "threads=1"]
    own = [f"{name}.{key}={value}" for name in ("identity", "regions") for key, value in TINY_SCORERS.items()]
    train_scorers.main(["world=rooms", *sizes, *own, f"output={tmp_path / 'weights'}", f"data={tmp_path / 'data'}"])
    configs = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("weights/*/config.json")}
    assert set(configs) == {"annotator", "judge", "identity", "regions"}
    ids = [attribute.id for attribute in WORLDS.get("rooms").judged]
    assert configs["annotator"]["attributes"] == ids == configs["judge"]["attributes"]
    assert configs["regions"]["attributes"] == list(WORLDS.get("rooms").regions)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["world=gardens"], "unknown world 'gardens': there is portraits, rooms"),
        (
            ["world=rooms", "scorers=[likeness]"],
            "unknown scorer of rooms 'likeness': there is annotator, identity, judge, regions",
        ),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(tmp_path: Path, overrides: list[str], line: str) -> None:
    with pytest.raises(InputError) as error:
        train_scorers.main([*overrides, f"output={tmp_path / 'weights'}", f"data={tmp_path / 'data'}"])
    assert str(error.value) == line
    assert not list(tmp_path.iterdir())
