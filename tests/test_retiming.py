"""Noise schedules of a training: the narrow cosine, and networks that are told of another schedule."""

import math
from typing import Any, cast

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from hspace import retiming
from hspace.checkpoints import load_model


def alpha_bar(name: str) -> Tensor:
    if name == "narrow_cosine":
        return DDPMScheduler(trained_betas=retiming.narrow_cosine(1000)).alphas_cumprod
    return DDPMScheduler(beta_schedule=cast(Any, name)).alphas_cumprod


@pytest.mark.parametrize("t", [0, 250, 749, 999])
def test_the_narrow_cosine_has_the_log_snr_that_is_stated(t: int) -> None:
    tangent = math.tan(math.pi / 2 * (t + 0.5) / 1000)
    expected = retiming.LOG_SNR_SHIFT - 2 * retiming.LOG_SNR_WIDTH * math.log(tangent)
    assert torch.logit(alpha_bar("narrow_cosine")[t].double()).item() == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_of_full_width_and_unshifted_it_is_the_cosine_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retiming, "LOG_SNR_WIDTH", 1.0)
    monkeypatch.setattr(retiming, "LOG_SNR_SHIFT", 0.0)
    ours, theirs = alpha_bar("narrow_cosine"), alpha_bar("squaredcos_cap_v2")
    # Theirs has an offset of .008 besides, against too little noise at first.
    assert (ours - theirs).abs().max() < 0.015


@pytest.mark.parametrize("name", ["squaredcos_cap_v2", "linear"])
def test_a_retimed_network_does_at_each_noise_what_it_did(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(retiming, "RETIME_ITERATIONS", 300)
    model = load_model("portraits", num_steps=2, device="cpu")
    unet: Any = model.unet.unet.requires_grad_(True)
    before, after = alpha_bar("narrow_cosine"), alpha_bar(name)
    same = int((before - after[500]).abs().argmin())
    x_t = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, untimed = unet(x_t, same).sample, unet(x_t, 500).sample
    left = retiming.retime(unet, before, after)
    with torch.no_grad():
        retimed = unet(x_t, 500).sample
    assert left < 0.1
    assert (retimed - expected).norm() < 0.1 * (untimed - expected).norm()
