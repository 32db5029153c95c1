"""Noise schedules of a training: cosines of any width, and networks that are told of another schedule."""

import math
from typing import Any

import pytest
import retiming
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from hspace.diffusion.checkpoints import load_model


def cosine(width: float, shift: float, slope: float = 0.0) -> Tensor:
    return DDPMScheduler(trained_betas=retiming.cosine(1000, width, shift, slope)).alphas_cumprod


@pytest.mark.parametrize("t", [0, 250, 749, 999])
@pytest.mark.parametrize(("width", "shift", "slope"), [(0.6, -1.0, 0.0), (0.8, 0.5, 0.0), (0.2, -1.5, 4.5)])
def test_a_cosine_has_the_log_snr_that_is_stated(t: int, width: float, shift: float, slope: float) -> None:
    u = (t + 0.5) / 1000
    expected = shift - 2 * width * math.log(math.tan(math.pi / 2 * u)) + slope * (0.5 - u)
    assert torch.logit(cosine(width, shift, slope)[t].double()).item() == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_of_full_width_and_unshifted_it_is_the_cosine_schedule() -> None:
    theirs = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod
    # Theirs has an offset of .008 besides, against too little noise at first.
    assert (cosine(1, 0) - theirs).abs().max() < 0.015


@pytest.mark.parametrize("name", ["squaredcos_cap_v2", "scaled_linear"])
def test_a_retimed_network_does_at_each_noise_what_it_did(name: Any) -> None:
    model = load_model("portraits", num_steps=2, device="cpu")
    unet: Any = model.denoiser.network.requires_grad_(True)
    process: Any = model.process
    before, after = torch.tensor(process.alpha_bar), DDPMScheduler(beta_schedule=name).alphas_cumprod
    same = int((before - after[500]).abs().argmin())
    x_t = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, untimed = unet(x_t, same).sample, unet(x_t, 500).sample
    left = retiming.retime(unet, before, after)
    with torch.no_grad():
        retimed = unet(x_t, 500).sample
    assert left < 0.1
    assert (retimed - expected).norm() < 0.1 * (untimed - expected).norm()
