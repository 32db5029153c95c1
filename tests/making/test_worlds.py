"""The trainings of another world than that of the portraits, a few steps each."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import train_scorers
from configuration import training_configuration
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline

from hspace.cli import main
from hspace.diffusion.checkpoints import load_model
from hspace.runs.errors import guarded
from hspace.scorers.factory import load_identity, load_regions, load_scorer
from hspace.types import InputError
from hspace.worlds.world import WORLDS


def test_a_world_changes_what_its_file_says_and_an_override_comes_last() -> None:
    cfg = training_configuration("ddpm", ["world=rooms", "unet.attention_head_dim=16"])
    assert list(cfg.unet.block_out_channels) == [16, 32, 64, 48] and cfg.unet.attention_head_dim == 16
    assert cfg.unet.layers_per_block == training_configuration("ddpm", []).unet.layers_per_block
    assert cfg.unet.block_out_channels[-1] * (cfg.size / 8) ** 2 / (3 * cfg.size**2) <= 0.34


@pytest.mark.parametrize("name", ["ddpm", "scorers", "autoencoder", "latent", "transformer"])
def test_every_world_writes_into_its_own_folder_and_learns_its_own_latents(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A world that has no file in conf/train.
    monkeypatch.setitem(WORLDS._registered, "gardens", replace(WORLDS.get("rooms"), id="gardens"))
    parent = "hspace/weights/{}" if name == "scorers" else f".train/{{}}/{name}"
    for world in WORLDS.names():
        cfg = training_configuration(name, [f"world={world}"])
        assert cfg.output == parent.format(world)
        assert cfg.get("autoencoder") is None or name == "autoencoder" or world in cfg.autoencoder.split("/")


@pytest.mark.slow
def test_rooms_are_learnt_by_the_same_trainer(rooms_weights: Path) -> None:
    assert DDPMPipeline.from_pretrained(rooms_weights / "rooms" / "ddpm").unet.config["sample_size"] == 16
    painted = sorted(path.name for path in (rooms_weights.parent / "data").iterdir())
    assert painted == ["rooms_v1_16px_8_seed10.npy", "rooms_v1_16px_8_seed10_varied.npy"]


@pytest.mark.slow
def test_rooms_have_scorers_of_their_own(rooms_weights: Path) -> None:
    configs = {path.parent.name: json.loads(path.read_text()) for path in rooms_weights.glob("rooms/*/config.json")}
    assert set(configs) == {"annotator", "judge", "identity", "regions"}
    ids = [attribute.id for attribute in WORLDS.get("rooms").judged]
    assert configs["annotator"]["attributes"] == ids == configs["judge"]["attributes"]
    assert configs["regions"]["attributes"] == list(WORLDS.get("rooms").regions)


@pytest.mark.slow
@pytest.mark.usefixtures("rooms_installed")
def test_the_registries_give_the_networks_of_rooms() -> None:
    world, images = WORLDS.get("rooms"), torch.zeros(2, 3, 16, 16)
    judge, annotator = load_scorer("rooms-judge"), load_scorer("rooms-annotator")
    assert (judge.id, annotator.id) == ("rooms-judge", "rooms-annotator")
    scores = judge(images)
    assert scores.shape == (2, len(world.judged))
    assert torch.equal(judge.visible(scores), world.visibility(dict(zip(judge.attributes, scores.T, strict=True))))
    assert (load_identity("rooms-identity")(images).norm(dim=1) - 1).abs().max() < 1e-5
    assert tuple(load_regions("rooms-regions")(images)) == world.regions


SMALL = [
    "evaluation.num_samples=4", "evaluation.reference_samples=8", "evaluation.calibration_samples=4",
    "diffusion.num_steps=2", "method.num_samples=8", "method.k=2", "tracking.mode=disabled", "device=cpu",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("rooms_installed")
def test_fig18_reads_rooms_with_their_own_judge(tmp_path: Path) -> None:
    words = ["experiment=fig18", *SMALL, f"output_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}"]
    assert main(words) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["judge"] == "rooms-judge" and record["findings"]["model"] == "rooms"
    assert len(record["findings"]["change"]) == 2 == len(record["findings"]["names"])
    assert (tmp_path / "run" / "figures" / "effects.png").is_file()


def test_fig18_leaves_scores_out_where_no_scorer_reads_the_model(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    words = ["experiment=fig18", "model=church", f"model.path={tiny_pipeline_dir}", *SMALL]
    assert main([*words, f"output_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}"]) == 0
    findings = json.loads((tmp_path / "run" / "run.json").read_text())["findings"]
    assert len(findings["change"]) == 2 and "names" not in findings
    assert not (tmp_path / "run" / "figures" / "effects.png").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model=rooms", "evaluation=portraits"], "model=rooms makes rooms, and evaluation.annotator="
         "portraits-annotator reads portraits: set evaluation=rooms"),
        (["evaluation=rooms"], "model=portraits makes portraits, and evaluation.annotator=rooms-annotator reads "
         "rooms: set evaluation=portraits"),
        (["model=church", "evaluation=rooms"], "model=church makes photographs, and evaluation.annotator="
         "rooms-annotator reads the embedded rooms only: set evaluation=clip, evaluation=hub or evaluation=faceapi"),
    ],
)  # fmt: skip
def test_scorers_of_another_world_are_refused(
    words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(lambda: main([*words, "tracking.mode=disabled", f"output_dir={tmp_path / 'run'}"])) == 2
    assert capsys.readouterr().err == f"hspace: error: {line}\n"


@pytest.mark.parametrize(
    ("load", "line"),
    [
        (lambda: load_scorer("rooms-judge"), "the weights of the embedded rooms-judge are not installed"),
        (lambda: load_model("rooms"), "the weights of the embedded model rooms are not installed"),
    ],
)
def test_weights_that_are_missing_are_one_line(
    load: Callable[[], object], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("diffusion.checkpoints", "scorers.embedded"):
        monkeypatch.setattr(f"hspace.{module}.package_path", lambda name: tmp_path / name)
    with pytest.raises(InputError, match=line):
        load()


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
