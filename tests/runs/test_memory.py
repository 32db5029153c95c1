"""The counted memory bounds what passes really take, and a limit chooses the batch."""

import sys
from dataclasses import replace

import pytest
import torch

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampling import sample
from hspace.runs.config import Config
from hspace.runs.memory import KERNELS, Peak, fitted, row_bytes
from hspace.types import InputError


def test_the_peak_is_that_of_tensors_alive_at_once() -> None:
    with Peak() as counted:
        a = torch.zeros(1000)
        b = a.view(10, 100)
        c = b + 1
        del a, b
        d = c * 2
        del c
        e = d.clone()
    # a and c are there together, then c and d, then d and e: two at any time, and a view is none.
    assert counted.peak == 2 * 4000
    assert e.shape == (10, 100)


@pytest.mark.parametrize("rows", [1, 4, 16])
def test_sampling_takes_no_more_than_the_formula(tiny_model: DiffusionModel, rows: int) -> None:
    latents = tiny_model.latents(range(rows))
    delta_h = torch.zeros(rows, len(tiny_model.process.timesteps), *tiny_model.h_shape)
    given = sum(tensor.nbytes for tensor in (latents.x_T, latents.z, delta_h))
    with Peak() as counted:
        sample(tiny_model, latents, delta_h=delta_h, record_h=True)
    weights = sum(weight.nbytes for weight in tiny_model.denoiser.network.parameters())
    bound = weights + rows * row_bytes(tiny_model)
    assert bound / 4 < counted.peak + given <= bound


def test_a_limit_chooses_the_batch(default_config: Config, tiny_model: DiffusionModel) -> None:
    weights = sum(weight.nbytes for weight in tiny_model.denoiser.network.parameters())
    row = KERNELS * row_bytes(tiny_model)

    def chosen(limit: float | None, batch_size: int = 0, workers: int = 1) -> int:
        cfg = replace(default_config, batch_size=batch_size, memory_gib=limit, workers=workers)
        return fitted(cfg, tiny_model).batch_size

    assert chosen((weights + 9.5 * row) / 2**30) == 8
    assert chosen((weights + 1.5 * row) / 2**30) == 1
    assert chosen(None) == 64
    assert chosen(1e-9, batch_size=5) == 5
    if sys.platform.startswith("linux"):
        assert chosen((weights + 9.5 * row) / 2**30, workers=2) == 4
    with pytest.raises(InputError, match=r"memory_gib must be at least .* got 1e-05"):
        chosen(1e-5)
