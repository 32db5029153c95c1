"""Artefacts for training scorers: in range, repeatable, and absent on part of the images."""

import pytest
import torch

from hspace.worlds.artefacts import ARTEFACTS, _blur
from hspace.worlds.portraits.faces import render, sample_factors


@pytest.mark.parametrize("name", ARTEFACTS)
def test_artefacts_are_repeatable_in_range_and_leave_some_images_alone(name: str) -> None:
    images = render(sample_factors(torch.Generator().manual_seed(0), 64), 32)
    first, again = (ARTEFACTS[name](images, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.min() >= -1 and first.max() <= 1
    change = (first - images).abs().amax(dim=(1, 2, 3))
    assert 0 < (change < 1e-5).sum() < 32 and change.max() > 0.1


def test_blur_keeps_constants_and_leaves_images_of_width_zero() -> None:
    flat = torch.full((2, 3, 8, 8), 0.3)
    assert (_blur(flat, torch.tensor([0.0, 0.8]).view(2, 1, 1, 1)) - flat).abs().max() < 1e-6
    images = torch.rand(1, 3, 8, 8)
    assert (_blur(images, torch.zeros(1, 1, 1, 1)) - images).abs().max() < 1e-6
