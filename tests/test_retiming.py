"""Noise schedules of a training: the narrow cosine, and networks that are told of another schedule."""

import math
from typing import Any

import pytest
import torch

from hspace import retiming
from hspace.checkpoints import load_model
from hspace.types import InputError

OPTIONS = {"num_train_timesteps": 1000, "prediction_type": "v_prediction", "clip_sample": False}


@pytest.mark.parametrize("t", [0, 250, 749, 999])
def test_the_narrow_cosine_has_the_log_snr_that_is_stated(t: int) -> None:
    scheduler = retiming.noise_scheduler("narrow_cosine", OPTIONS)
    tangent = math.tan(math.pi / 2 * (t + 0.5) / 1000)
    expected = retiming.LOG_SNR_SHIFT - 2 * retiming.LOG_SNR_WIDTH * math.log(tangent)
    assert torch.logit(scheduler.alphas_cumprod[t].double()).item() == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert scheduler.config["prediction_type"] == "v_prediction"


def test_of_full_width_and_unshifted_it_is_the_cosine_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retiming, "LOG_SNR_WIDTH", 1.0)
    monkeypatch.setattr(retiming, "LOG_SNR_SHIFT", 0.0)
    ours, theirs = (retiming.noise_scheduler(name, OPTIONS) for name in ("narrow_cosine", "squaredcos_cap_v2"))
    # Theirs has an offset of .008 besides, against too little noise at first.
    assert (ours.alphas_cumprod - theirs.alphas_cumprod).abs().max() < 0.015


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(InputError, match="unknown beta_schedule 'cosin'"):
        retiming.noise_scheduler("cosin", OPTIONS)


@pytest.mark.parametrize("name", ["squaredcos_cap_v2", "linear"])
def test_a_retimed_network_does_at_each_noise_what_it_did(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(retiming, "RETIME_ITERATIONS", 300)
    model = load_model("portraits", num_steps=2, device="cpu")
    unet: Any = model.unet.unet.requires_grad_(True)
    before, after = (retiming.noise_scheduler(each, OPTIONS) for each in ("narrow_cosine", name))
    alpha_bar = float(after.alphas_cumprod[500])
    same = int((before.alphas_cumprod - alpha_bar).abs().argmin())
    x_t = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, untimed = unet(x_t, same).sample, unet(x_t, 500).sample
    left = retiming.retime(unet, before, after)
    with torch.no_grad():
        retimed = unet(x_t, 500).sample
    assert left < 0.1
    assert (retimed - expected).norm() < 0.1 * (untimed - expected).norm()
