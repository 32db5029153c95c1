"""Changes of any kind, applied to all samples alike or to each its own."""

from dataclasses import replace

import pytest
import torch
from vectors import directions_of, operator_of

from hspace.diffusion.checkpoints import DiffusionModel
from hspace.diffusion.sampler import Sampler
from hspace.edits.changes import Joined, apply_changes, apply_own
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


def test_an_offset_beside_an_operator_is_added_to_what_it_makes(tiny_model: DiffusionModel) -> None:
    operator, offset = operator_of(tiny_model), directions_of(tiny_model).directions[0]
    assert operator.shift is not None
    latents, sampler = tiny_model.latents(SEEDS), Sampler(start=1)
    # An operator whose shift is larger by the offset makes the same change of every h.
    shifted = replace(operator, shift=operator.shift + offset)
    joined = Joined(operator, offset)
    made = apply_changes(tiny_model, latents, [0.0 * joined, 0.5 * joined, joined], sampler=sampler)
    expected = apply_changes(tiny_model, latents, [0.0 * operator, 0.5 * shifted, shifted], sampler=sampler)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)
    apart = apply_changes(tiny_model, latents, [operator], sampler=sampler)[:, 0]
    assert (made[:, 2] - apart).abs().max() > 1e-2
    with pytest.raises(InputError, match="offsets of h must be"):
        apply_changes(tiny_model, latents, [Joined(operator, offset[:2])])
    with pytest.raises(InputError, match=r"must be in \[0, 1\], got -1"):
        apply_changes(tiny_model, latents, [-1.0 * joined])
