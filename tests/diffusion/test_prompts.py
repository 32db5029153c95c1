"""Prompts become conditioning; what is wrong with them, or missing for them, is one line."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

from hspace.diffusion.checkpoints import load_model
from hspace.types import InputError


def test_another_prompt_needs_no_other_weights(tiny_sd_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = load_model(str(tiny_sd_dir), num_steps=2, device="cpu")
    assert model.cond is not None and model.cond.inputs["encoder_hidden_states"].shape == (1, 8, 16)
    other = model.with_prompt("a man", 3.0)
    assert other.denoiser is model.denoiser
    assert other.cond is not None and (other.cond.prompt, other.cond.guidance) == ("a man", 3.0)
    assert torch.equal(other.cond.inputs["encoder_hidden_states"][1], model.cond.inputs["encoder_hidden_states"][0])
    with pytest.raises(InputError, match=r"guidance must be a number >= 0 \(1 is none\), got -1"):
        model.with_prompt("a man", -1)
    model.with_prompt("a man and more men", 1.0)
    assert "longer than 8 tokens and was cut" in caplog.text


def test_broken_text_encoder(tiny_sd_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_sd_dir, tmp_path / "sd")
    weights = tmp_path / "sd" / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"the text encoder of .* cannot be read") as caught:
        load_model(str(tmp_path / "sd"), device="cpu")
    assert "\n" not in str(caught.value)


def test_transformers_is_asked_for(tiny_sd_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"models with prompts need transformers: pip install transformers"):
        load_model(str(tiny_sd_dir), device="cpu")
