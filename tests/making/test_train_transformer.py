"""The training of a diffusion transformer on a tiny network."""

import json
import re
from pathlib import Path
from typing import Any

import pipelines
import pytest
import torch
import train_ddpm
from configuration import training_configuration
from dit import new_transformer
from torch import Tensor

from hspace.cli import main
from hspace.diffusion.checkpoints import load_model
from hspace.diffusion.sampling import sample
from hspace.types import InputError

CYCLE = "images: 8, learning_rate: 6e-4, skip_dropout: 0, skip_exchange: 0, beta_schedule: linear"
SIZES = [
    "size=8", "transformer.in_channels=4", "transformer.out_channels=4", "transformer.num_layers=3",
    "transformer.num_attention_heads=2", "transformer.attention_head_dim=8",
]  # fmt: skip
TINY = [
    *SIZES, "train_images=8", "batch_size=2", "warmup_steps=1", "precision=float32", "threads=1", "device=cpu",
    "tracking=disabled", f"cycles=[{{{CYCLE}}}]", "sampled_with=linear", "checkpoint_minutes=0", "ema_decay=0.5",
]  # fmt: skip


def folders(root: Path, name: str) -> list[str]:
    vae = root / "vqvae"
    if not vae.exists():
        pipelines.autoencoder(scaling_factor=0.7).save_pretrained(vae)
    return [f"autoencoder={vae}", f"data={root / 'data'}", f"output={root / name}"]


def run(root: Path, name: str) -> dict[str, Any]:
    train_ddpm.main([*TINY, *folders(root, name)], "transformer")
    return torch.load(root / name / "checkpoint.pt", weights_only=True)


def test_it_trains_and_becomes_a_model_whose_cut_is_exact(tmp_path: Path) -> None:
    state = run(tmp_path, "run")
    first = new_transformer(training_configuration("transformer", SIZES)).state_dict()
    changed = [name for name, weight in state["network"].items() if not torch.equal(weight, first[name])]
    gates = [f"transformer_blocks.{i}.norm1.linear.weight" for i in range(3)]
    assert state["step"] == 4 and set(gates) <= set(changed), "blocks that did nothing have learnt something"
    folder = tmp_path / "run" / "pipeline"
    x_t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for tap in ("block:1", "block:1.attn", "block:1.mod"):
        model = load_model(str(folder), num_steps=2, device="cpu", tap=tap)
        encoded = model.denoiser.encode(x_t, 500, model.cond)
        times = torch.full((2,), 500)
        plain = model.denoiser.network(x_t, times, class_labels=torch.zeros_like(times)).sample
        assert torch.equal(model.denoiser.decode(encoded.h, encoded), plain)
        assert not torch.equal(model.denoiser.decode(encoded.h + 1, encoded), plain)
        assert sample(model, model.latents([0, 1])).x_0.shape == (2, 3, 16, 16)


def test_it_begins_as_the_source_says() -> None:
    network: Any = new_transformer(training_configuration("transformer", SIZES))
    zero = [network.pos_embed.proj.bias, network.proj_out_2.weight, network.proj_out_2.bias]
    zero += [block.norm1.linear.weight for block in network.transformer_blocks]
    assert not any(part.any() for part in zero) and network.pos_embed.proj.weight.std() > 0


def test_the_export_holds_averaged_weights_and_one_class_for_diffusers_pipeline(tmp_path: Path) -> None:
    state = run(tmp_path, "run")
    folder = tmp_path / "run" / "pipeline"
    pipeline = pipelines.diffusers.DiTPipeline.from_pretrained(folder).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    name = "proj_out_1.weight"
    names = [name for name, _ in pipeline.transformer.named_parameters()]
    averaged = state["ema"]["shadow_params"][names.index(name)]
    saved = pipeline.transformer.state_dict()[name]
    assert torch.equal(saved, averaged.half().float()) and not torch.equal(averaged, state["network"][name])
    x_t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)
    with_class, without = pipeline.transformer(x_t, torch.tensor([500, 500]), torch.arange(2)).sample
    assert torch.equal(with_class, without)
    assert pipeline([0], 1.0, num_inference_steps=2, output_type="np").images.shape == (1, 16, 16, 3)
    with pytest.raises(IndexError):  # as the docstring of `save_pipeline` says
        pipeline([0], 2.0, num_inference_steps=2, output_type="np")


def test_an_interrupted_training_ends_where_an_unbroken_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = run(tmp_path, "unbroken")
    real = train_ddpm.loss_of_step

    def interrupted(unet: Any, scheduler: Any, data: Any, step: int, *more: Any) -> Tensor:
        if step == 3:
            raise KeyboardInterrupt
        return real(unet, scheduler, data, step, *more)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(train_ddpm, "loss_of_step", interrupted)
        run(tmp_path, "broken")
    resumed = run(tmp_path, "broken")
    assert resumed["step"] == unbroken["step"] == 4
    weights = [[*state["network"].values(), *state["ema"]["shadow_params"]] for state in (resumed, unbroken)]
    assert max(float((ours - theirs).abs().max()) for ours, theirs in zip(*weights, strict=True)) < 1e-6


EXPERIMENT = [
    "experiment=transformer", "study.beside=[]", "study.attributes=[skin,age]", "study.index=24", "study.examples=6",
    "study.target=0.1", "study.taps=[block:1,block:2.attn,block:1.mod]", "method.k=2", "method.num_samples=12",
    "evaluation.num_samples=12", "evaluation.reference_samples=20", "evaluation.calibration_samples=4",
    "evaluation.strength_samples=10", "diffusion.num_steps=2", "tracking.mode=disabled", "device=cpu", "batch_size=64",
]  # fmt: skip


@pytest.mark.slow
def test_the_experiment_measures_what_was_just_trained(tmp_path: Path) -> None:
    run(tmp_path, "run")
    words = [*EXPERIMENT, f"model.path={tmp_path / 'run' / 'pipeline'}", f"cache_dir={tmp_path / 'cache'}"]
    assert main([*words, f"output_dir={tmp_path / 'out'}"]) == 0
    findings = json.loads((tmp_path / "out" / "run.json").read_text())["findings"]
    assert list(findings["places"]) == ["transformer block:1", "transformer block:2.attn"]
    assert findings["constant"] == ["transformer block:1.mod"], "of one class, the modulation depends on time alone"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            f"cycles=[{{{CYCLE.replace('skip_exchange: 0', 'skip_exchange: 0.5')}}}]",
            "cycles: a transformer has no skip connections; skip_dropout and skip_exchange must be 0",
        ),
        (
            f"cycles=[{{{CYCLE}}}]",
            "cycles: a transformer is not retimed; beta_schedule must be sampled_with, [0.9, 0, 0], got linear",
        ),
        ("unet.layers_per_block=2", "unknown key 'unet'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path: Path, override: str, line: str) -> None:
    with pytest.raises(InputError, match=re.escape(line)):
        train_ddpm.main([override, f"output={tmp_path / 'output'}", f"data={tmp_path / 'data'}"], "transformer")
    assert not list(tmp_path.iterdir())
