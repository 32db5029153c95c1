"""The training script on a tiny U-Net: an interrupted training ends where an unbroken one does."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import retiming
import torch
import train_ddpm

from hspace.diffusion.checkpoints import load_model

TINY = [
    "size=16", "train_images=8", "batch_size=2", "warmup_steps=1", "checkpoint_minutes=0",
    "cycles=[{images: 4, learning_rate: 6e-4, skip_dropout: 0, skip_exchange: 0, beta_schedule: linear},"
    "{images: 4, learning_rate: 4e-4, skip_dropout: 0.5, skip_exchange: 0.5,"
    " beta_schedule: [0.6, -1, 2]}]",
    "precision=float32", "threads=1", "device=cpu", "unet.block_out_channels=[8,8,8,8]", "unet.norm_num_groups=4",
    "unet.attention_head_dim=8",
]  # fmt: skip


@pytest.fixture(autouse=True)
def wandb_at_home_and_short_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retiming, "RETIME_ITERATIONS", 10)
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    monkeypatch.delenv("WANDB_MODE", raising=False)


def run(folder: Path, *more: str) -> dict[str, Any]:
    train_ddpm.main([*TINY, f"output={folder}", f"data={folder.parent / 'data'}", *more])
    return torch.load(folder / "checkpoint.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 2, 3])  # in the first cycle, where the second begins, and in it
def test_an_interrupted_training_ends_where_an_unbroken_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    unbroken = run(tmp_path / "unbroken", "tracking=disabled")
    assert not (tmp_path / "unbroken" / "wandb").exists()
    real = train_ddpm.loss_of_step

    def interrupted(unet: Any, scheduler: Any, data: Any, step: int, *more: Any) -> torch.Tensor:
        if step == stop:
            raise KeyboardInterrupt
        return real(unet, scheduler, data, step, *more)

    with monkeypatch.context() as patched:
        patched.setattr(train_ddpm, "loss_of_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "broken", "tracking=disabled")
    resumed = run(tmp_path / "broken", "tracking=disabled")
    assert resumed["step"] == unbroken["step"] == 4
    weights = [[*state["network"].values(), *state["ema"]["shadow_params"]] for state in (resumed, unbroken)]
    assert max(float((ours - theirs).abs().max()) for ours, theirs in zip(*weights, strict=True)) < 1e-6


def test_a_finished_training_writes_its_pipeline_again(tmp_path: Path) -> None:
    run(tmp_path / "run", "tracking=disabled")
    path = tmp_path / "run" / "pipeline" / "scheduler" / "scheduler_config.json"
    before = path.read_text()
    shutil.rmtree(tmp_path / "run" / "pipeline")
    run(tmp_path / "run", "tracking=disabled")
    assert path.read_text() == before


def test_curves_are_tracked_offline_and_the_result_is_a_model(tmp_path: Path) -> None:
    run(tmp_path / "run")
    wandb = Path(sys.executable).with_name("wandb")
    done = subprocess.run(
        [wandb, "leet", "inspect", "--json", "--summary", tmp_path / "run" / "wandb"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    overview = json.loads(done.stdout)
    assert overview["state"] == "finished" and overview["config"]["cycles"][1]["skip_exchange"] == 0.5
    assert overview["summary"]["images"] == 8 and overview["summary"]["loss"] > 0
    model = load_model(str(tmp_path / "run" / "pipeline"), num_steps=2, device="cpu")
    assert model.sample_shape == (3, 16, 16) and model.process.prediction_type == "v_prediction"


@pytest.mark.parametrize(
    ("script", "override", "line"),
    [
        ("train_ddpm", "bach_size=4", "unknown key 'bach_size': did you mean 'batch_size'?"),
        (
            "train_ddpm",
            "sampled_with=[wide, 0, 0]",
            "sampled_with is a name, or [width, shift, slope] with a width above 0 and a slope of 0 or more, got "
            "['wide', 0, 0]",
        ),
        (
            "train_ddpm",
            "cycles=[{images: 4, learning_rate: 1e-4, skip_dropout: 0, skip_exchange: 2, beta_schedule: linear}]",
            "cycles: skip_exchange must be a number in [0, 1], got 2",
        ),
        ("train_ddpm", "batch_size=abc", "batch_size must be even, its halves exchange skip connections; got abc"),
        ("train_ddpm", "batch_size=3", "batch_size must be even, its halves exchange skip connections; got 3"),
        ("train_ddpm", "unet.layers=2", "unknown key 'unet.layers': did you mean 'unet.layers_per_block'?"),
        (
            "train_ddpm",
            "cycles=[{images:4}]",
            "cycles: each has beta_schedule, images, learning_rate, skip_dropout, skip_exchange, "
            "got {'images:4': None}",
        ),
        (
            "train_ddpm",
            "cycles=[{images: 4, learning_rate: 1e-4, skip_dropout: 0, skip_exchange: 0, beta_schedule: squaredcos}]",
            "unknown beta_schedule 'squaredcos': did you mean 'squaredcos_cap_v2'?",
        ),
        (
            "train_ddpm",
            "cycles=[{images: 4, learning_rate: 1e-4, skip_dropout: 0, skip_exchange: 0, beta_schedule: [1]}]",
            "beta_schedule is a name, or [width, shift, slope] with a width above 0 and a slope of 0 or more, got [1]",
        ),
        (
            "train_ddpm",
            "sampled_with=[0.2, 0, -1]",
            "sampled_with is a name, or [width, shift, slope] with a width above 0 and a slope of 0 or more, got "
            "[0.2, 0, -1]",
        ),
        ("train_ddpm", "unet=3", "unet has keys of its own, as in unet.in_channels=..."),
        ("train_scorers", "judge.sed=1", "unknown key 'judge.sed': did you mean 'judge.seed'?"),
    ],
)  # fmt: skip
def test_a_mistaken_override_is_one_line_and_nothing_is_written(
    tmp_path: Path, script: str, override: str, line: str
) -> None:
    here = Path(train_ddpm.__file__).with_name(f"{script}.py")
    output = [f"output={tmp_path / 'output'}", f"data={tmp_path / 'data'}"]
    done = subprocess.run([sys.executable, here, *output, override], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"hspace: error: {line}\n")
    assert not list(tmp_path.iterdir())
