"""Changes of any kind, applied to all samples alike or to each its own."""

import pytest
import torch

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampler import Sampler
from hspace.edits.changes import apply_changes, apply_own
from hspace.types import InputError

SEEDS = [2_000_000, 2_000_001, 2_000_002]


@pytest.mark.parametrize("space", ["h", "x_T"])
def test_each_sample_gets_its_own_change(tiny_model: DiffusionModel, space: str) -> None:
    steps = len(tiny_model.process.timesteps)
    shape = tiny_model.sample_shape if space == "x_T" else (steps, *tiny_model.h_shape)
    changes, index = list(torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))), [1, 0, 1]
    latents, sampler = tiny_model.latents(SEEDS), Sampler(batch_size=2)
    own = apply_own(tiny_model, latents, changes, index, sampler=sampler)
    every = apply_changes(tiny_model, latents, changes, sampler=sampler)
    assert own.shape == (len(SEEDS), *tiny_model.image_shape)
    torch.testing.assert_close(own, every[range(len(SEEDS)), index], atol=1e-5, rtol=1e-5)
    assert (own - every[:, 0])[::2].abs().max() > 1e-3


def test_every_sample_must_have_a_change(tiny_model: DiffusionModel) -> None:
    with pytest.raises(InputError, match="a change for each of 3 samples, got 1"):
        apply_own(tiny_model, tiny_model.latents(SEEDS), [torch.zeros(tiny_model.sample_shape)], [0])
