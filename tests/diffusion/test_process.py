"""Parity with diffusers' schedulers in float64, and the identities of eqs. 1-5."""

import math
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_heun_discrete import FlowMatchHeunDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler

from hspace.diffusion.process import SPACINGS, FlowMatching, Process, Schedule
from hspace.types import InputError

DIFFUSED = ("epsilon", "v_prediction", "sample")


def images(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(count)]


def in_float64(scheduler: Any) -> Any:
    """The scheduler with its own float32 noise levels, computing in float64."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    return scheduler


def step(schedule: Process, output: torch.Tensor, x_t: torch.Tensor, z: torch.Tensor, i: int, eta: float) -> Any:
    t, t_prev = schedule.pairs()[i]
    eps = schedule.to_eps(output, x_t, t)
    mean, sigma = schedule.posterior(schedule.to_x0(output, x_t, t), eps, t, t_prev, eta)
    return mean + sigma * z


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 10, 25, 50, 333, 999, 1000])
@pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler])
def test_timesteps_are_those_of_diffusers(kind: Any, num_steps: int, spacing: str) -> None:
    scheduler = kind(timestep_spacing=spacing)
    scheduler.set_timesteps(num_steps)
    assert list(Schedule.of(scheduler, num_steps).timesteps) == scheduler.timesteps.tolist()


def test_timesteps_with_an_offset() -> None:
    scheduler = DDIMScheduler(steps_offset=1)
    scheduler.set_timesteps(10)
    assert list(Schedule.of(scheduler, 10).timesteps) == scheduler.timesteps.tolist()


def test_trailing_never_runs_past_the_end() -> None:
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(61)
    assert scheduler.timesteps.tolist()[61:] == [-1]
    assert list(Schedule.of(scheduler, 61).timesteps) == scheduler.timesteps.tolist()[:61]


def test_leading_pairs_of_the_paper() -> None:
    schedule = Schedule.of(DDPMScheduler(), 10)
    assert schedule.pairs() == [*[(t, t - 100) for t in range(900, 0, -100)], (0, -1)]


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("prediction_type", DIFFUSED)
@pytest.mark.parametrize("set_alpha_to_one", [True, False])
def test_steps_are_those_of_ddim(eta: float, prediction_type: Any, set_alpha_to_one: bool) -> None:
    offset = 0 if set_alpha_to_one else 1
    scheduler = in_float64(
        DDIMScheduler(
            clip_sample=False, prediction_type=prediction_type, set_alpha_to_one=set_alpha_to_one, steps_offset=offset
        )
    )
    scheduler.set_timesteps(50)
    schedule = Schedule.of(scheduler, 50)
    x_t, output, z = images(3)
    for i, t in enumerate(schedule.timesteps):
        theirs = scheduler.step(output, t, x_t, eta=eta, variance_noise=z).prev_sample
        ours = step(schedule, output, x_t, z, i, eta)
        assert (ours - theirs).abs().max() <= 1e-12 * theirs.abs().max()


def test_eta_1_over_all_steps_is_ddpm() -> None:
    scheduler = in_float64(DDPMScheduler(clip_sample=False))
    scheduler.set_timesteps(1000)
    schedule = Schedule.of(scheduler, 1000)
    x_t, output = images(2)
    for t in (999, 500, 20, 1, 0):
        theirs: Any = scheduler.step(output, t, x_t, generator=torch.Generator().manual_seed(1))
        z = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        ours = step(schedule, output, x_t, z, 999 - t, eta=1.0)
        assert (ours - theirs.prev_sample).abs().max() <= 1e-10


def test_last_step_is_the_predicted_image_at_any_eta() -> None:
    schedule = Schedule.of(DDPMScheduler(), 10)
    x0_hat, eps = images(2)
    for eta in (0.0, 0.5, 1.0):
        mean, sigma = schedule.posterior(x0_hat, eps, 0, -1, eta)
        assert sigma == 0.0
        assert torch.equal(mean, x0_hat)


@pytest.mark.parametrize("prediction_type", DIFFUSED)
def test_every_prediction_type_gives_back_the_noise(prediction_type: str) -> None:
    schedule = Schedule.of(DDIMScheduler(prediction_type=prediction_type), 10)  # pyright: ignore[reportArgumentType]
    x_0, noise = images(2)
    for t in schedule.timesteps:
        alpha, sigma = math.sqrt(schedule.alpha_bar[t]), math.sqrt(1 - schedule.alpha_bar[t])
        output = {"epsilon": noise, "v_prediction": alpha * noise - sigma * x_0, "sample": x_0}[prediction_type]
        x_t = schedule.add_noise(x_0, noise, t)
        eps = schedule.to_eps(output, x_t, t)
        assert (eps - noise).abs().max() < 1e-11
        assert (schedule.predict_x0(x_t, eps, t) - x_0).abs().max() < 1e-11
        assert (schedule.to_x0(output, x_t, t) - x_0).abs().max() < 1e-11


def test_one_eta_keeps_the_marginal_variance() -> None:
    """sqrt(alpha_bar_prev) x_0 + D + sigma z has variance 1 - alpha_bar_prev around the clean image, for any eta."""
    schedule = Schedule.of(DDPMScheduler(), 10)
    zero, one = torch.zeros(1, 1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for t, t_prev in schedule.pairs()[:-1]:
        for eta in (0.0, 0.5, 1.0):
            direction, sigma = schedule.posterior(zero, one, t, t_prev, eta)
            assert abs(direction.item() ** 2 + sigma**2 - (1 - schedule.alpha_bar[int(t_prev)])) < 1e-12


def test_final_alpha_bar_comes_from_the_checkpoint() -> None:
    assert Schedule.of(DDPMScheduler(), 10).final_alpha_bar == 1.0
    pndm = PNDMScheduler(steps_offset=1, skip_prk_steps=True)
    schedule = Schedule.of(pndm, 10)
    assert schedule.final_alpha_bar == schedule.alpha_bar[0] == pndm.alphas_cumprod[0].item()
    assert schedule.timesteps[-1] == 1


@pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler, PNDMScheduler])
def test_a_configuration_serves_as_well_as_the_scheduler(kind: Any) -> None:
    scheduler = kind(beta_schedule="scaled_linear", prediction_type="v_prediction")
    assert Process.from_scheduler(dict(scheduler.config, _class_name=kind.__name__), 7) == Schedule.of(scheduler, 7)


def test_etas() -> None:
    schedule = Schedule.of(DDPMScheduler(), 3)
    assert schedule.etas(0.5) == (0.5, 0.5, 0.5)
    assert schedule.etas([0.0, 0.5, 1.0]) == (0.0, 0.5, 1.0)
    for wrong, message in ((1.1, r"\[0, 1\], got 1.1"), (math.nan, "got nan"), ([1.0], r"3 \(one per step\), got 1")):
        with pytest.raises(InputError, match=message):
            schedule.etas(wrong)


DDPM = {"_class_name": "DDPMScheduler"}


@pytest.mark.parametrize(
    ("scheduler", "num_steps", "spacing", "message"),
    [
        (DDPMScheduler(), 0, None, r"num_steps must be in \[1, 1000\], got 0"),
        (DDPMScheduler(), 1001, None, "got 1001"),
        (DDPMScheduler(), 10, "even", "spacing must be one of leading, trailing, linspace, got even"),
        (DDIMScheduler(steps_offset=1), 1000, None, "got 1000; use fewer steps"),
        (DDIMScheduler(rescale_betas_zero_snr=True), 10, "trailing", r"only noise \(t=999, alpha_bar 0\); use leading"),
        (EulerDiscreteScheduler(prediction_type="other"), 10, None, "prediction_type must be one of"),
        (FlowMatchEulerDiscreteScheduler(), 10, "leading", "spacing belongs to diffusion"),
        (FlowMatchEulerDiscreteScheduler(), 0, None, r"num_steps must be in \[1, 1000\], got 0"),
        (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), 10, None, "by the number of image tokens"),
        (FlowMatchEulerDiscreteScheduler(shift_terminal=0.02), 1, None, "no noise levels for 1 step"),
        (FlowMatchHeunDiscreteScheduler(), 10, None, "FlowMatchHeunDiscreteScheduler has no alphas_cumprod"),
        ({"_class_name": "Nonsense"}, 10, None, "unknown scheduler Nonsense"),
        ({"_class_name": "UNet2DModel"}, 10, None, "unknown scheduler UNet2DModel"),
        ({**DDPM, "beta_schedule": "steep"}, 10, None, "configuration of the DDPMScheduler cannot be used: steep"),
        ({**DDPM, "beta_start": "small"}, 10, None, "configuration of the DDPMScheduler cannot be used"),
        ({**DDPM, "num_train_timesteps": "many"}, 10, None, "a whole number from 1 to 100000, got 'many'"),
        ({**DDPM, "num_train_timesteps": -5}, 10, None, "a whole number from 1 to 100000, got -5"),
        ({**DDPM, "num_train_timesteps": 2 * 10**7}, 10, None, "a whole number from 1 to 100000, got 20000000"),
    ],
)
def test_bad_schedules(scheduler: Any, num_steps: int, spacing: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Process.from_scheduler(scheduler, num_steps, spacing)


@pytest.mark.parametrize(
    ("t", "t_prev", "eta", "message"),
    [
        (100, 100, 1.0, "t=100 and t_prev=100"),
        (100, -2, 1.0, "t_prev=-2"),
        (1000, 900, 1.0, "got 1000"),
        (900, 800, -0.1, "got -0.1"),
    ],
)
def test_bad_steps(t: int, t_prev: int, eta: float, message: str) -> None:
    schedule = Schedule.of(DDPMScheduler(), 10)
    x0_hat, eps = images(2)
    with pytest.raises(InputError, match=message):
        schedule.posterior(x0_hat, eps, t, t_prev, eta)


FLOWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shifted": {"shift": 3.0},
    "shifted by the number of tokens": {"use_dynamic_shifting": True},
    "with an end of its own": {"use_dynamic_shifting": True, "shift_terminal": 0.02},
}


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("num_steps", [2, 4, 28])
@pytest.mark.parametrize("own_range", [False, True])
def test_flow_matching_is_the_euler_step_of_diffusers(flow: str, num_steps: int, own_range: bool) -> None:
    scheduler: Any = FlowMatchEulerDiscreteScheduler(**FLOWS[flow])
    process = Process.from_scheduler(scheduler, num_steps, image_tokens=1024, own_range=own_range)
    mu = {"mu": 0.5 + 0.65 * (1024 - 256) / (4096 - 256)} if "use_dynamic_shifting" in FLOWS[flow] else {}
    evenly = {"sigmas": [1 - i / num_steps for i in range(num_steps)]}
    scheduler.set_timesteps(**({"num_inference_steps": num_steps} if own_range else evenly), **mu)
    x_t, output, z = images(3)
    ours = x_t
    for i, t in enumerate(scheduler.timesteps):
        assert abs(process.timesteps[i] - float(t)) <= 1e-3
        x_t = scheduler.step(output, t, x_t).prev_sample
        ours = step(process, output, ours, z, i, eta=0.0)
        assert (ours - x_t).abs().max() <= 1e-6 * x_t.abs().max()


@pytest.mark.parametrize("eta", [0.1, 0.5, 1.0])
def test_noise_of_flow_matching_keeps_the_marginal_and_the_joint_of_its_path(eta: float) -> None:
    """x_{t_prev} has b_prev² around the image, and a covariance with x_t that leaves x_t as noisy as it was."""
    process = FlowMatching.of(FlowMatchEulerDiscreteScheduler(shift=3.0), 10)
    zero, one = torch.zeros(1, 1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for (t, t_prev), (a, b), (a_prev, b_prev) in zip(
        process.pairs(), process.levels(), process.levels()[1:], strict=False
    ):
        direction, sigma = process.posterior(zero, one, t, t_prev, eta)
        assert abs(direction.item() ** 2 + sigma**2 - b_prev**2) < 1e-12
        ancestral = b_prev**2 * (1 - (a * b_prev / (a_prev * b)) ** 2)
        assert sigma == pytest.approx(eta * math.sqrt(ancestral), abs=1e-12)


def test_flow_gives_back_image_and_noise() -> None:
    process = FlowMatching.of(FlowMatchEulerDiscreteScheduler(), 5)
    x_0, noise = images(2)
    for t in process.timesteps:
        x_t = process.add_noise(x_0, noise, t)
        assert (process.to_x0(noise - x_0, x_t, t) - x_0).abs().max() < 1e-12
        assert (process.to_eps(noise - x_0, x_t, t) - noise).abs().max() < 1e-12


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_models_that_start_from_noise_alone(eta: float) -> None:
    """With v prediction a terminal signal-to-noise ratio of zero is defined; every other equation is as usual."""
    scheduler = in_float64(
        DDIMScheduler(
            rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing", clip_sample=False
        )
    )
    scheduler.set_timesteps(10)
    process = Process.from_scheduler(scheduler, 10)
    assert process.levels()[0] == (0.0, 1.0)
    x_t, output, z = images(3)
    for i, t in enumerate(process.timesteps):
        theirs = scheduler.step(output, int(t), x_t, eta=eta, variance_noise=z).prev_sample
        ours = step(process, output, x_t, z, i, eta)
        # Theirs takes the variance from float32 noise levels.
        assert (ours - theirs).abs().max() <= 1e-7


@pytest.mark.parametrize("kind", ["diffusion", "terminal noise", "next to noise", "a noisy end", "flow"])
def test_the_input_of_a_step_leads_back_to_its_output(kind: str) -> None:
    zero_snr: Any = DDIMScheduler(
        rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"
    )
    faint: Any = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing"
    )
    noisy: Any = DDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing", set_alpha_to_one=False)
    schedulers = {
        "diffusion": DDIMScheduler(), "terminal noise": zero_snr, "next to noise": faint,
        "a noisy end": noisy, "flow": FlowMatchEulerDiscreteScheduler(),
    }  # fmt: skip
    process = Process.from_scheduler(schedulers[kind], 4)
    x_0, eps = images(2)
    for t, t_prev in process.pairs():
        x_prev, _ = process.posterior(x_0, eps, t, t_prev, 0.0)
        assert (process.step_input(x_prev, x_0, eps, t, t_prev) - process.add_noise(x_0, eps, t)).abs().max() <= 1e-10
        moved = process.step_input(x_prev, x_0 + 1, eps, t, t_prev), process.step_input(x_prev, x_0, eps + 1, t, t_prev)
        growth = [float((each - process.add_noise(x_0, eps, t)).abs().max()) for each in moved]
        assert max(growth) <= 1 + 1e-9, "an error of the prediction grows"
    one = Process.from_scheduler(schedulers[kind], 1)
    if kind in ("terminal noise", "flow"):
        with pytest.raises(InputError, match="single step from noise to image cannot be inverted"):
            one.step_input(x_0, x_0, eps, one.timesteps[0], -1)
