"""The exact denoiser needs no training, so what its samples are off by is what the steps do."""

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from retiming import cosine

from hspace.diffusion.process import Schedule
from hspace.runs.errors import guarded
from hspace.worlds.world import WORLDS


@pytest.fixture
def step_bias(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield importlib.import_module("step_bias")
    for name in ("step_bias", "train_ddpm"):
        sys.modules.pop(name, None)


def off_by(step_bias: Any, num_steps: int) -> dict[str, float]:
    scheduler = DDPMScheduler(trained_betas=cosine(1000, 0.6, -1), timestep_spacing="trailing")
    found = step_bias.lost_shares(WORLDS.get("portraits"), Schedule.of(scheduler, num_steps), 32, 256, 4096)
    return {name: difference for name, (_, difference) in found.items()}


@pytest.mark.slow
def test_many_steps_give_every_render_its_share_and_few_do_not(step_bias: Any) -> None:
    few, many = off_by(step_bias, 6), off_by(step_bias, 200)
    assert set(many) == {"glasses", "hat", "beard", "gender"}
    assert all(abs(difference) < 0.03 for difference in many.values())  # three standard errors at most
    assert few["glasses"] < -0.06 and few["glasses"] < many["glasses"] - 0.04


def test_a_mistaken_schedule_is_one_line(step_bias: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: step_bias.main(["sampled_with=liner"])) == 2
    assert "unknown sampled_with 'liner': did you mean 'linear'?" in capsys.readouterr().err
