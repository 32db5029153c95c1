"""The trainings of the autoencoder and of the latent model on tiny networks."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import train_autoencoder
import train_ddpm
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from omegaconf import OmegaConf

from hspace.diffusion.checkpoints import load_model
from hspace.diffusion.sampling import sample

TINY = [
    "size=16", "train_images=8", "held_out.images=4", "batch_size=2", "images=8", "warmup_steps=1",
    "checkpoint_minutes=60", "precision=float32", "threads=1", "device=cpu", "tracking=disabled",
    "autoencoder.block_out_channels=[8,8]", "autoencoder.latent_channels=4", "autoencoder.norm_num_groups=4",
    "autoencoder.down_block_types=[DownEncoderBlock2D,DownEncoderBlock2D]",
    "autoencoder.up_block_types=[UpDecoderBlock2D,UpDecoderBlock2D]",
]  # fmt: skip
LATENT = [
    "size=8", "train_images=8", "batch_size=2", "warmup_steps=1", "precision=float32", "threads=1", "device=cpu",
    "tracking=disabled", "unet.in_channels=4", "unet.out_channels=4", "unet.block_out_channels=[8,8]",
    "unet.norm_num_groups=4", "unet.attention_head_dim=8", "sampled_with=linear",
    "cycles=[{images: 4, learning_rate: 6e-4, skip_dropout: 0, skip_exchange: 0, beta_schedule: linear}]",
]  # fmt: skip


def run(folder: Path) -> dict[str, Any]:
    train_autoencoder.main([*TINY, f"output={folder}", f"data={folder.parent / 'data'}"])
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def test_an_interrupted_training_ends_where_an_unbroken_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = run(tmp_path / "unbroken")
    real = train_autoencoder.loss_of_step

    def interrupted(network: Any, data: Any, step: int, *more: Any) -> torch.Tensor:
        if step == 3:
            raise KeyboardInterrupt
        return real(network, data, step, *more)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(train_autoencoder, "loss_of_step", interrupted)
        train_autoencoder.main(
            [*TINY, "checkpoint_minutes=0", f"output={tmp_path / 'broken'}", f"data={tmp_path / 'data'}"]
        )
    resumed = run(tmp_path / "broken")
    assert resumed["step"] == unbroken["step"] == 4
    weights = [[*state["network"].values(), *state["ema"]["shadow_params"]] for state in (resumed, unbroken)]
    assert max(float((ours - theirs).abs().max()) for ours, theirs in zip(*weights, strict=True)) < 1e-6


def test_the_autoencoder_and_a_latent_model_of_it_become_a_model_that_samples(tmp_path: Path) -> None:
    run(tmp_path / "autoencoder")
    network: Any = AutoencoderKL.from_pretrained(tmp_path / "autoencoder" / "vqvae", torch_dtype=torch.float32)
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    spread = train_autoencoder.figures(network.eval(), images)["spread"]
    assert 0.1 < spread * network.config.scaling_factor < 10
    where = [f"autoencoder={tmp_path / 'autoencoder' / 'vqvae'}", f"output={tmp_path / 'latent'}"]
    train_ddpm.main([*LATENT, *where, f"data={tmp_path / 'data'}"], "latent")
    model = load_model(str(tmp_path / "latent" / "pipeline"), num_steps=2, device="cpu")
    assert model.sample_shape == (4, 8, 8) and model.image_shape == (3, 16, 16)
    assert sample(model, model.latents([0, 1])).x_0.shape == (2, 3, 16, 16)


def test_psnr_is_that_of_its_definition() -> None:
    class Shifted(torch.nn.Module):
        def encode(self, images: torch.Tensor) -> Any:
            self.images = images
            mode = type("Posterior", (), {"mode": lambda _: images})()
            return type("Encoded", (), {"latent_dist": mode})()

        def decode(self, latents: torch.Tensor) -> Any:
            return type("Decoded", (), {"sample": latents + 0.2})()

    found = train_autoencoder.figures(Shifted(), torch.zeros(3, 3, 8, 8))  # pyright: ignore[reportArgumentType]
    assert abs(found["psnr"] - 20.0) < 1e-4 and found["spread"] == 0


def test_the_loss_counts_pixels_edges_and_the_downsampled_image() -> None:
    cfg = OmegaConf.create({"edge_weight": 2.0, "coarse_weight": 3.0})
    true = torch.zeros(1, 3, 16, 16)
    assert train_autoencoder.reconstruction_loss(true, true, cfg) == 0
    shifted = train_autoencoder.reconstruction_loss(true + 0.5, true, cfg)
    assert abs(float(shifted) - (0.5 + 3.0 * 0.25)) < 1e-6
    stripes = torch.ones(16).cumsum(0) % 2 - 0.5
    striped = train_autoencoder.reconstruction_loss(true + stripes, true, cfg)
    assert abs(float(striped) - (0.5 + 2.0 * 1.0)) < 1e-6


@pytest.mark.parametrize(
    ("script", "override", "line"),
    [
        ("train_autoencoder", "batchsize=4", "unknown key 'batchsize': did you mean 'batch_size'?"),
        ("train_autoencoder", "precision=half", "precision must be auto, float32 or bfloat16, got half"),
        (
            "train_latent",
            "autoencoder=nowhere",
            "autoencoder=nowhere is not a folder that train_autoencoder.py wrote",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path: Path, script: str, override: str, line: str) -> None:
    here = Path(train_ddpm.__file__).with_name(f"{script}.py")
    output = [f"output={tmp_path / 'output'}", f"data={tmp_path / 'data'}"]
    done = subprocess.run([sys.executable, here, *output, override], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"hspace: error: {line}\n")
    assert not list(tmp_path.iterdir())
